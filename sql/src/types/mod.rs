//! SQL types and values: oids, modifiers, text and binary forms, arithmetic that belongs to one type.
//!
//! A [`Type`] is its PostgreSQL oid, so it is the same on the wire, in the catalog and on a replica. What a type *is*
//! (name, category, array partner) stands in one table, [`info`]. A value is a [`Datum`]; it does not carry its type,
//! the expression it came from does. The text and binary forms of every type meet in [`io`].

pub mod array;
pub mod bytea;
pub mod datetime;
pub mod datum;
pub mod float;
pub mod info;
pub mod interval;
pub mod io;
pub mod json;
pub mod numeric;
pub mod reg;
pub mod timezone;
pub mod uuid;

pub use array::Array;
pub use datum::{Datum, Row};
pub use interval::Interval;
pub use json::Jsonb;
pub use numeric::Numeric;

/// A type, by its PostgreSQL oid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(pub u32);

/// A type with its modifier: `numeric(10,2)`, `varchar(5)`. Modifier -1 means none; it is encoded as PostgreSQL does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeMod {
    /// The type.
    pub ty: Type,
    /// `atttypmod`: -1, or for varchar/char n+4, for numeric ((p<<16)|s)+4, for time types the precision.
    pub typmod: i32,
}

#[allow(missing_docs)] // each is named after pg_type.typname
impl Type {
    /// No type: the left side of a prefix operator.
    pub const NONE: Type = Type(0);
    pub const BOOL: Type = Type(16);
    pub const BYTEA: Type = Type(17);
    /// `"char"`, one byte.
    pub const CHAR: Type = Type(18);
    pub const NAME: Type = Type(19);
    pub const INT8: Type = Type(20);
    pub const INT2: Type = Type(21);
    pub const INT2VECTOR: Type = Type(22);
    pub const INT4: Type = Type(23);
    pub const REGPROC: Type = Type(24);
    pub const TEXT: Type = Type(25);
    pub const OID: Type = Type(26);
    pub const TID: Type = Type(27);
    pub const XID: Type = Type(28);
    pub const CID: Type = Type(29);
    pub const OIDVECTOR: Type = Type(30);
    pub const JSON: Type = Type(114);
    pub const JSON_ARRAY: Type = Type(199);
    pub const FLOAT4: Type = Type(700);
    pub const FLOAT8: Type = Type(701);
    pub const UNKNOWN: Type = Type(705);
    /// `char(n)`.
    pub const BPCHAR: Type = Type(1042);
    pub const VARCHAR: Type = Type(1043);
    pub const DATE: Type = Type(1082);
    pub const TIME: Type = Type(1083);
    pub const TIMESTAMP: Type = Type(1114);
    pub const TIMESTAMPTZ: Type = Type(1184);
    pub const INTERVAL: Type = Type(1186);
    pub const NUMERIC: Type = Type(1700);
    pub const REGPROCEDURE: Type = Type(2202);
    pub const REGOPER: Type = Type(2203);
    pub const REGOPERATOR: Type = Type(2204);
    pub const REGCLASS: Type = Type(2205);
    pub const REGTYPE: Type = Type(2206);
    pub const REGNAMESPACE: Type = Type(4089);
    pub const REGROLE: Type = Type(4096);
    pub const RECORD: Type = Type(2249);
    pub const CSTRING: Type = Type(2275);
    pub const ANY: Type = Type(2276);
    pub const ANYARRAY: Type = Type(2277);
    pub const VOID: Type = Type(2278);
    pub const ANYELEMENT: Type = Type(2283);
    pub const ANYNONARRAY: Type = Type(2776);
    pub const ANYCOMPATIBLE: Type = Type(5077);
    pub const ANYCOMPATIBLEARRAY: Type = Type(5078);
    pub const UUID: Type = Type(2950);
    pub const JSONB: Type = Type(3802);
    pub const JSONB_ARRAY: Type = Type(3807);
    pub const BOOL_ARRAY: Type = Type(1000);
    pub const BYTEA_ARRAY: Type = Type(1001);
    pub const CHAR_ARRAY: Type = Type(1002);
    pub const NAME_ARRAY: Type = Type(1003);
    pub const INT2_ARRAY: Type = Type(1005);
    pub const INT4_ARRAY: Type = Type(1007);
    pub const TEXT_ARRAY: Type = Type(1009);
    pub const BPCHAR_ARRAY: Type = Type(1014);
    pub const VARCHAR_ARRAY: Type = Type(1015);
    pub const INT8_ARRAY: Type = Type(1016);
    pub const FLOAT4_ARRAY: Type = Type(1021);
    pub const FLOAT8_ARRAY: Type = Type(1022);
    pub const OID_ARRAY: Type = Type(1028);
    pub const TIMESTAMP_ARRAY: Type = Type(1115);
    pub const DATE_ARRAY: Type = Type(1182);
    pub const TIME_ARRAY: Type = Type(1183);
    pub const TIMESTAMPTZ_ARRAY: Type = Type(1185);
    pub const INTERVAL_ARRAY: Type = Type(1187);
    pub const NUMERIC_ARRAY: Type = Type(1231);
    pub const UUID_ARRAY: Type = Type(2951);
    pub const RECORD_ARRAY: Type = Type(2287);
    pub const REGCLASS_ARRAY: Type = Type(2210);
    pub const REGTYPE_ARRAY: Type = Type(2211);
    pub const ACLITEM_ARRAY: Type = Type(1034);
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Type({})", self.0)
    }
}

impl Type {
    /// This type without a modifier.
    pub fn plain(self) -> TypeMod {
        TypeMod { ty: self, typmod: -1 }
    }
}
