//! The table of types: everything a [`Type`] is besides its number.
//!
//! One row a type, generated from the `pg_type` of PostgreSQL 15 and cut to what we implement: the binder reads names and
//! categories from it, the wire its oids, `pg_type` its rest. Rows are in the order of their oids, so looking up is a binary search.
//! Types PostgreSQL has and we lack are known by name only ([`unsupported_name`]), so that using one is "not supported" and
//! not "does not exist".

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::{Type, TypeMod};
use crate::error::{Result, SqlError, state};

/// A row of `pg_type`.
#[derive(Clone, Copy, Debug)]
pub struct TypeInfo {
    /// Its oid.
    pub ty: Type,
    /// `pg_type.typname`.
    pub name: &'static str,
    /// What `format_type` calls it: `integer`, `character varying`.
    pub sql_name: &'static str,
    /// `typlen`: bytes of a fixed-size value, -1 for variable, -2 for a C string.
    pub len: i16,
    /// `typbyval`.
    pub by_value: bool,
    /// `typtype`: `b` base, `p` pseudo.
    pub kind: u8,
    /// `typcategory`, see PostgreSQL's table of category codes: `N` numbers, `S` strings, `A` arrays.
    pub category: u8,
    /// `typispreferred`: the type its category's unknowns become.
    pub preferred: bool,
    /// `typelem`, [`Type::NONE`] for none. Not only arrays have one: see [`Type::element`].
    pub elem: Type,
    /// `typarray`, [`Type::NONE`] for none.
    pub array: Type,
    /// `typalign`.
    pub align: u8,
    /// `typstorage`.
    pub storage: u8,
    /// `typcollation`: 100 is the default one, 950 is C, 0 is not collatable.
    pub collation: u32,
    /// Names of `typinput`, `typoutput`, `typreceive`, `typsend`, `typmodin`, `typmodout`; empty for none.
    pub procs: [&'static str; 6],
}

#[allow(clippy::too_many_arguments)] // a table row; a struct literal each would bury the table
const fn row(
    ty: Type,
    name: &'static str,
    sql_name: &'static str,
    len: i16,
    by_value: bool,
    kind: u8,
    category: u8,
    preferred: bool,
    elem: Type,
    array: Type,
    align: u8,
    storage: u8,
    collation: u32,
    procs: [&'static str; 6],
) -> TypeInfo {
    TypeInfo {
        ty,
        name,
        sql_name,
        len,
        by_value,
        kind,
        category,
        preferred,
        elem,
        array,
        align,
        storage,
        collation,
        procs,
    }
}

/// All types, by oid.
#[rustfmt::skip]
pub static TYPES: &[TypeInfo] = &[
    row(Type::BOOL, "bool", "boolean", 1, true, b'b', b'B', true, Type::NONE, Type::BOOL_ARRAY, b'c', b'p', 0, ["boolin", "boolout", "boolrecv", "boolsend", "", ""]),
    row(Type::BYTEA, "bytea", "bytea", -1, false, b'b', b'U', false, Type::NONE, Type::BYTEA_ARRAY, b'i', b'x', 0, ["byteain", "byteaout", "bytearecv", "byteasend", "", ""]),
    row(Type::CHAR, "char", "\"char\"", 1, true, b'b', b'Z', false, Type::NONE, Type::CHAR_ARRAY, b'c', b'p', 0, ["charin", "charout", "charrecv", "charsend", "", ""]),
    row(Type::NAME, "name", "name", 64, false, b'b', b'S', false, Type::CHAR, Type::NAME_ARRAY, b'c', b'p', 950, ["namein", "nameout", "namerecv", "namesend", "", ""]),
    row(Type::INT8, "int8", "bigint", 8, true, b'b', b'N', false, Type::NONE, Type::INT8_ARRAY, b'd', b'p', 0, ["int8in", "int8out", "int8recv", "int8send", "", ""]),
    row(Type::INT2, "int2", "smallint", 2, true, b'b', b'N', false, Type::NONE, Type::INT2_ARRAY, b's', b'p', 0, ["int2in", "int2out", "int2recv", "int2send", "", ""]),
    row(Type::INT2VECTOR, "int2vector", "int2vector", -1, false, b'b', b'A', false, Type::INT2, Type(1006), b'i', b'p', 0, ["int2vectorin", "int2vectorout", "int2vectorrecv", "int2vectorsend", "", ""]),
    row(Type::INT4, "int4", "integer", 4, true, b'b', b'N', false, Type::NONE, Type::INT4_ARRAY, b'i', b'p', 0, ["int4in", "int4out", "int4recv", "int4send", "", ""]),
    row(Type::REGPROC, "regproc", "regproc", 4, true, b'b', b'N', false, Type::NONE, Type(1008), b'i', b'p', 0, ["regprocin", "regprocout", "regprocrecv", "regprocsend", "", ""]),
    row(Type::TEXT, "text", "text", -1, false, b'b', b'S', true, Type::NONE, Type::TEXT_ARRAY, b'i', b'x', 100, ["textin", "textout", "textrecv", "textsend", "", ""]),
    row(Type::OID, "oid", "oid", 4, true, b'b', b'N', true, Type::NONE, Type::OID_ARRAY, b'i', b'p', 0, ["oidin", "oidout", "oidrecv", "oidsend", "", ""]),
    row(Type::TID, "tid", "tid", 6, false, b'b', b'U', false, Type::NONE, Type(1010), b's', b'p', 0, ["tidin", "tidout", "tidrecv", "tidsend", "", ""]),
    row(Type::XID, "xid", "xid", 4, true, b'b', b'U', false, Type::NONE, Type(1011), b'i', b'p', 0, ["xidin", "xidout", "xidrecv", "xidsend", "", ""]),
    row(Type::CID, "cid", "cid", 4, true, b'b', b'U', false, Type::NONE, Type(1012), b'i', b'p', 0, ["cidin", "cidout", "cidrecv", "cidsend", "", ""]),
    row(Type::OIDVECTOR, "oidvector", "oidvector", -1, false, b'b', b'A', false, Type::OID, Type(1013), b'i', b'p', 0, ["oidvectorin", "oidvectorout", "oidvectorrecv", "oidvectorsend", "", ""]),
    row(Type::JSON, "json", "json", -1, false, b'b', b'U', false, Type::NONE, Type::JSON_ARRAY, b'i', b'x', 0, ["json_in", "json_out", "json_recv", "json_send", "", ""]),
    row(Type(194), "pg_node_tree", "pg_node_tree", -1, false, b'b', b'Z', false, Type::NONE, Type::NONE, b'i', b'x', 100, ["pg_node_tree_in", "pg_node_tree_out", "pg_node_tree_recv", "pg_node_tree_send", "", ""]),
    row(Type::JSON_ARRAY, "_json", "json[]", -1, false, b'b', b'A', false, Type::JSON, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::FLOAT4, "float4", "real", 4, true, b'b', b'N', false, Type::NONE, Type::FLOAT4_ARRAY, b'i', b'p', 0, ["float4in", "float4out", "float4recv", "float4send", "", ""]),
    row(Type::FLOAT8, "float8", "double precision", 8, true, b'b', b'N', true, Type::NONE, Type::FLOAT8_ARRAY, b'd', b'p', 0, ["float8in", "float8out", "float8recv", "float8send", "", ""]),
    row(Type::UNKNOWN, "unknown", "unknown", -2, false, b'p', b'X', false, Type::NONE, Type::NONE, b'c', b'p', 0, ["unknownin", "unknownout", "unknownrecv", "unknownsend", "", ""]),
    row(Type::BOOL_ARRAY, "_bool", "boolean[]", -1, false, b'b', b'A', false, Type::BOOL, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::BYTEA_ARRAY, "_bytea", "bytea[]", -1, false, b'b', b'A', false, Type::BYTEA, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::CHAR_ARRAY, "_char", "\"char\"[]", -1, false, b'b', b'A', false, Type::CHAR, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::NAME_ARRAY, "_name", "name[]", -1, false, b'b', b'A', false, Type::NAME, Type::NONE, b'i', b'x', 950, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::INT2_ARRAY, "_int2", "smallint[]", -1, false, b'b', b'A', false, Type::INT2, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1006), "_int2vector", "int2vector[]", -1, false, b'b', b'A', false, Type::INT2VECTOR, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::INT4_ARRAY, "_int4", "integer[]", -1, false, b'b', b'A', false, Type::INT4, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1008), "_regproc", "regproc[]", -1, false, b'b', b'A', false, Type::REGPROC, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::TEXT_ARRAY, "_text", "text[]", -1, false, b'b', b'A', false, Type::TEXT, Type::NONE, b'i', b'x', 100, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1010), "_tid", "tid[]", -1, false, b'b', b'A', false, Type::TID, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1011), "_xid", "xid[]", -1, false, b'b', b'A', false, Type::XID, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1012), "_cid", "cid[]", -1, false, b'b', b'A', false, Type(29), Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1013), "_oidvector", "oidvector[]", -1, false, b'b', b'A', false, Type::OIDVECTOR, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::BPCHAR_ARRAY, "_bpchar", "character[]", -1, false, b'b', b'A', false, Type::BPCHAR, Type::NONE, b'i', b'x', 100, ["array_in", "array_out", "array_recv", "array_send", "bpchartypmodin", "bpchartypmodout"]),
    row(Type::VARCHAR_ARRAY, "_varchar", "character varying[]", -1, false, b'b', b'A', false, Type::VARCHAR, Type::NONE, b'i', b'x', 100, ["array_in", "array_out", "array_recv", "array_send", "varchartypmodin", "varchartypmodout"]),
    row(Type::INT8_ARRAY, "_int8", "bigint[]", -1, false, b'b', b'A', false, Type::INT8, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::FLOAT4_ARRAY, "_float4", "real[]", -1, false, b'b', b'A', false, Type::FLOAT4, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::FLOAT8_ARRAY, "_float8", "double precision[]", -1, false, b'b', b'A', false, Type::FLOAT8, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::OID_ARRAY, "_oid", "oid[]", -1, false, b'b', b'A', false, Type::OID, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(1033), "aclitem", "aclitem", 12, false, b'b', b'U', false, Type::NONE, Type::ACLITEM_ARRAY, b'i', b'p', 0, ["aclitemin", "aclitemout", "", "", "", ""]),
    row(Type::ACLITEM_ARRAY, "_aclitem", "aclitem[]", -1, false, b'b', b'A', false, Type(1033), Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::BPCHAR, "bpchar", "character", -1, false, b'b', b'S', false, Type::NONE, Type::BPCHAR_ARRAY, b'i', b'x', 100, ["bpcharin", "bpcharout", "bpcharrecv", "bpcharsend", "bpchartypmodin", "bpchartypmodout"]),
    row(Type::VARCHAR, "varchar", "character varying", -1, false, b'b', b'S', false, Type::NONE, Type::VARCHAR_ARRAY, b'i', b'x', 100, ["varcharin", "varcharout", "varcharrecv", "varcharsend", "varchartypmodin", "varchartypmodout"]),
    row(Type::DATE, "date", "date", 4, true, b'b', b'D', false, Type::NONE, Type::DATE_ARRAY, b'i', b'p', 0, ["date_in", "date_out", "date_recv", "date_send", "", ""]),
    row(Type::TIME, "time", "time without time zone", 8, true, b'b', b'D', false, Type::NONE, Type::TIME_ARRAY, b'd', b'p', 0, ["time_in", "time_out", "time_recv", "time_send", "timetypmodin", "timetypmodout"]),
    row(Type::TIMESTAMP, "timestamp", "timestamp without time zone", 8, true, b'b', b'D', false, Type::NONE, Type::TIMESTAMP_ARRAY, b'd', b'p', 0, ["timestamp_in", "timestamp_out", "timestamp_recv", "timestamp_send", "timestamptypmodin", "timestamptypmodout"]),
    row(Type::TIMESTAMP_ARRAY, "_timestamp", "timestamp without time zone[]", -1, false, b'b', b'A', false, Type::TIMESTAMP, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "timestamptypmodin", "timestamptypmodout"]),
    row(Type::DATE_ARRAY, "_date", "date[]", -1, false, b'b', b'A', false, Type::DATE, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::TIME_ARRAY, "_time", "time without time zone[]", -1, false, b'b', b'A', false, Type::TIME, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "timetypmodin", "timetypmodout"]),
    row(Type::TIMESTAMPTZ, "timestamptz", "timestamp with time zone", 8, true, b'b', b'D', true, Type::NONE, Type::TIMESTAMPTZ_ARRAY, b'd', b'p', 0, ["timestamptz_in", "timestamptz_out", "timestamptz_recv", "timestamptz_send", "timestamptztypmodin", "timestamptztypmodout"]),
    row(Type::TIMESTAMPTZ_ARRAY, "_timestamptz", "timestamp with time zone[]", -1, false, b'b', b'A', false, Type::TIMESTAMPTZ, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "timestamptztypmodin", "timestamptztypmodout"]),
    row(Type::INTERVAL, "interval", "interval", 16, false, b'b', b'T', true, Type::NONE, Type::INTERVAL_ARRAY, b'd', b'p', 0, ["interval_in", "interval_out", "interval_recv", "interval_send", "intervaltypmodin", "intervaltypmodout"]),
    row(Type::INTERVAL_ARRAY, "_interval", "interval[]", -1, false, b'b', b'A', false, Type::INTERVAL, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "intervaltypmodin", "intervaltypmodout"]),
    row(Type::NUMERIC_ARRAY, "_numeric", "numeric[]", -1, false, b'b', b'A', false, Type::NUMERIC, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "numerictypmodin", "numerictypmodout"]),
    row(Type(1263), "_cstring", "cstring[]", -1, false, b'b', b'A', false, Type::CSTRING, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::NUMERIC, "numeric", "numeric", -1, false, b'b', b'N', false, Type::NONE, Type::NUMERIC_ARRAY, b'i', b'm', 0, ["numeric_in", "numeric_out", "numeric_recv", "numeric_send", "numerictypmodin", "numerictypmodout"]),
    row(Type::REGPROCEDURE, "regprocedure", "regprocedure", 4, true, b'b', b'N', false, Type::NONE, Type(2207), b'i', b'p', 0, ["regprocedurein", "regprocedureout", "regprocedurerecv", "regproceduresend", "", ""]),
    row(Type::REGOPER, "regoper", "regoper", 4, true, b'b', b'N', false, Type::NONE, Type(2208), b'i', b'p', 0, ["regoperin", "regoperout", "regoperrecv", "regopersend", "", ""]),
    row(Type::REGOPERATOR, "regoperator", "regoperator", 4, true, b'b', b'N', false, Type::NONE, Type(2209), b'i', b'p', 0, ["regoperatorin", "regoperatorout", "regoperatorrecv", "regoperatorsend", "", ""]),
    row(Type::REGCLASS, "regclass", "regclass", 4, true, b'b', b'N', false, Type::NONE, Type::REGCLASS_ARRAY, b'i', b'p', 0, ["regclassin", "regclassout", "regclassrecv", "regclasssend", "", ""]),
    row(Type::REGTYPE, "regtype", "regtype", 4, true, b'b', b'N', false, Type::NONE, Type::REGTYPE_ARRAY, b'i', b'p', 0, ["regtypein", "regtypeout", "regtyperecv", "regtypesend", "", ""]),
    row(Type(2207), "_regprocedure", "regprocedure[]", -1, false, b'b', b'A', false, Type::REGPROCEDURE, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(2208), "_regoper", "regoper[]", -1, false, b'b', b'A', false, Type::REGOPER, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(2209), "_regoperator", "regoperator[]", -1, false, b'b', b'A', false, Type(2204), Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::REGCLASS_ARRAY, "_regclass", "regclass[]", -1, false, b'b', b'A', false, Type::REGCLASS, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::REGTYPE_ARRAY, "_regtype", "regtype[]", -1, false, b'b', b'A', false, Type::REGTYPE, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::RECORD, "record", "record", -1, false, b'p', b'P', false, Type::NONE, Type::RECORD_ARRAY, b'd', b'x', 0, ["record_in", "record_out", "record_recv", "record_send", "", ""]),
    row(Type::CSTRING, "cstring", "cstring", -2, false, b'p', b'P', false, Type::NONE, Type(1263), b'c', b'p', 0, ["cstring_in", "cstring_out", "cstring_recv", "cstring_send", "", ""]),
    row(Type::ANY, "any", "\"any\"", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["any_in", "any_out", "", "", "", ""]),
    row(Type::ANYARRAY, "anyarray", "anyarray", -1, false, b'p', b'P', false, Type::NONE, Type::NONE, b'd', b'x', 0, ["anyarray_in", "anyarray_out", "anyarray_recv", "anyarray_send", "", ""]),
    row(Type::VOID, "void", "void", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["void_in", "void_out", "void_recv", "void_send", "", ""]),
    row(Type(2279), "trigger", "trigger", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["trigger_in", "trigger_out", "", "", "", ""]),
    row(Type(2280), "language_handler", "language_handler", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["language_handler_in", "language_handler_out", "", "", "", ""]),
    row(Type(2281), "internal", "internal", 8, true, b'p', b'P', false, Type::NONE, Type::NONE, b'd', b'p', 0, ["internal_in", "internal_out", "", "", "", ""]),
    row(Type::ANYELEMENT, "anyelement", "anyelement", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["anyelement_in", "anyelement_out", "", "", "", ""]),
    row(Type::RECORD_ARRAY, "_record", "record[]", -1, false, b'p', b'P', false, Type::RECORD, Type::NONE, b'd', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::ANYNONARRAY, "anynonarray", "anynonarray", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["anynonarray_in", "anynonarray_out", "", "", "", ""]),
    row(Type::UUID, "uuid", "uuid", 16, false, b'b', b'U', false, Type::NONE, Type::UUID_ARRAY, b'c', b'p', 0, ["uuid_in", "uuid_out", "uuid_recv", "uuid_send", "", ""]),
    row(Type::UUID_ARRAY, "_uuid", "uuid[]", -1, false, b'b', b'A', false, Type::UUID, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::JSONB, "jsonb", "jsonb", -1, false, b'b', b'U', false, Type::NONE, Type::JSONB_ARRAY, b'i', b'x', 0, ["jsonb_in", "jsonb_out", "jsonb_recv", "jsonb_send", "", ""]),
    row(Type::JSONB_ARRAY, "_jsonb", "jsonb[]", -1, false, b'b', b'A', false, Type::JSONB, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type(3838), "event_trigger", "event_trigger", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["event_trigger_in", "event_trigger_out", "", "", "", ""]),
    row(Type::REGNAMESPACE, "regnamespace", "regnamespace", 4, true, b'b', b'N', false, Type::NONE, Type(4090), b'i', b'p', 0, ["regnamespacein", "regnamespaceout", "regnamespacerecv", "regnamespacesend", "", ""]),
    row(Type(4090), "_regnamespace", "regnamespace[]", -1, false, b'b', b'A', false, Type::REGNAMESPACE, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::REGROLE, "regrole", "regrole", 4, true, b'b', b'N', false, Type::NONE, Type(4097), b'i', b'p', 0, ["regrolein", "regroleout", "regrolerecv", "regrolesend", "", ""]),
    row(Type(4097), "_regrole", "regrole[]", -1, false, b'b', b'A', false, Type::REGROLE, Type::NONE, b'i', b'x', 0, ["array_in", "array_out", "array_recv", "array_send", "", ""]),
    row(Type::ANYCOMPATIBLE, "anycompatible", "anycompatible", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["anycompatible_in", "anycompatible_out", "", "", "", ""]),
    row(Type::ANYCOMPATIBLEARRAY, "anycompatiblearray", "anycompatiblearray", -1, false, b'p', b'P', false, Type::NONE, Type::NONE, b'd', b'x', 0, ["anycompatiblearray_in", "anycompatiblearray_out", "anycompatiblearray_recv", "anycompatiblearray_send", "", ""]),
    row(Type(5079), "anycompatiblenonarray", "anycompatiblenonarray", 4, true, b'p', b'P', false, Type::NONE, Type::NONE, b'i', b'p', 0, ["anycompatiblenonarray_in", "anycompatiblenonarray_out", "", "", "", ""]),
];

/// Names, in `pg_type` and in SQL, of the types of PostgreSQL 15 that do not exist here.
#[rustfmt::skip]
static UNSUPPORTED: &[&str] = &[
    "anycompatiblemultirange", "anycompatiblerange", "anyenum", "anymultirange", "anyrange", "bit", "bit varying", "box", "cidr", "circle",
    "datemultirange", "daterange", "fdw_handler", "gtsvector", "index_am_handler", "inet", "int4multirange", "int4range", "int8multirange",
    "int8range", "jsonpath", "line", "lseg", "macaddr", "macaddr8", "money", "nummultirange", "numrange", "path",
    "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_ddl_command", "pg_dependencies", "pg_lsn", "pg_mcv_list", "pg_ndistinct",
    "pg_snapshot", "point", "polygon", "refcursor", "regcollation", "regconfig", "regdictionary", "table_am_handler",
    "time with time zone", "timetz", "tsm_handler", "tsmultirange", "tsquery", "tsrange", "tstzmultirange", "tstzrange", "tsvector",
    "txid_snapshot", "varbit", "xid8", "xml",
];

/// SQL spellings that are not `typname`s.
static SPELLINGS: &[(&str, Type)] = &[
    ("boolean", Type::BOOL),
    ("smallint", Type::INT2),
    ("integer", Type::INT4),
    ("int", Type::INT4),
    ("bigint", Type::INT8),
    ("real", Type::FLOAT4),
    ("float", Type::FLOAT8),
    ("double precision", Type::FLOAT8),
    ("decimal", Type::NUMERIC),
    ("dec", Type::NUMERIC),
    ("char", Type::BPCHAR),
    ("character", Type::BPCHAR),
    ("nchar", Type::BPCHAR),
    ("national char", Type::BPCHAR),
    ("national character", Type::BPCHAR),
    ("character varying", Type::VARCHAR),
    ("char varying", Type::VARCHAR),
    ("nchar varying", Type::VARCHAR),
    ("national char varying", Type::VARCHAR),
    ("national character varying", Type::VARCHAR),
    ("time without time zone", Type::TIME),
    ("timestamp without time zone", Type::TIMESTAMP),
    ("timestamp with time zone", Type::TIMESTAMPTZ),
    ("\"char\"", Type::CHAR),
    ("\"any\"", Type::ANY),
];

/// Whether PostgreSQL has a type of this name and we have not: `inet`, `point`, `bit varying`. Lower case; array forms included.
pub fn unsupported_name(name: &str) -> bool {
    let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
    let base = name.strip_prefix('_').or_else(|| name.strip_suffix("[]")).unwrap_or(name).trim_end();
    UNSUPPORTED.binary_search(&base).is_ok()
}

impl Type {
    /// Its row in the table; None for a number that is no type of ours.
    pub fn info(self) -> Option<&'static TypeInfo> {
        TYPES.binary_search_by_key(&self, |t| t.ty).ok().map(|i| &TYPES[i])
    }
    /// By `pg_type.typname`, exactly: `"char"` is named `char` here, and char(n) `bpchar`.
    pub fn by_typname(name: &str) -> Option<Type> {
        static NAMES: OnceLock<FxHashMap<&'static str, Type>> = OnceLock::new();
        NAMES.get_or_init(|| TYPES.iter().map(|t| (t.name, t.ty)).collect()).get(name).copied()
    }
    /// By a name as written in SQL, in lower case with single spaces: `int`, `int4`, `double precision`, `pg_catalog.text`, `_int4`,
    /// each also with `[]` behind. `char` is char(n); the one-byte type is `"char"`, in its quotes.
    pub fn by_name(name: &str) -> Option<Type> {
        if let Some(element) = name.strip_suffix("[]") {
            let element = Type::by_name(element.trim_end())?;
            return element.array_of().or(element.is_array().then_some(element));
        }
        let (qualified, name) = match name.strip_prefix("pg_catalog.") {
            Some(rest) => (true, rest),
            None => (false, name),
        };
        let spelled = SPELLINGS.iter().find(|(s, _)| *s == name).map(|(_, t)| *t);
        if qualified {
            // A qualified name is never a keyword: pg_catalog.char is "char", pg_catalog.int does not exist.
            return Type::by_typname(name.trim_matches('"'));
        }
        spelled.or_else(|| Type::by_typname(name))
    }
    /// Its array type.
    pub fn array_of(self) -> Option<Type> {
        self.info().map(|t| t.array).filter(|a| *a != Type::NONE)
    }
    /// The type of its elements, if it is an array type (int2vector and oidvector are; name, though it has a `typelem`, is not).
    pub fn element(self) -> Option<Type> {
        // record[] is a pseudo-type, and so of category P.
        self.info()
            .filter(|t| (t.category == b'A' || t.ty == Type::RECORD_ARRAY) && t.elem != Type::NONE)
            .map(|t| t.elem)
    }
    /// Category code; `X` (unknown) for a type not in the table.
    pub fn category(self) -> u8 {
        self.info().map_or(b'X', |t| t.category)
    }
    /// Whether values are arrays.
    pub fn is_array(self) -> bool {
        self.element().is_some()
    }
    /// Category S: text, varchar, char(n), name.
    pub fn is_string(self) -> bool {
        self.category() == b'S'
    }
    /// Category N: numbers, and the oid types too.
    pub fn is_numeric(self) -> bool {
        self.category() == b'N'
    }
    /// Preferred in its category.
    pub fn is_preferred(self) -> bool {
        self.info().is_some_and(|t| t.preferred)
    }
    /// Whether it stands for other types in a signature (any, anyelement, anyarray, anycompatible ...).
    pub fn is_polymorphic(self) -> bool {
        matches!(self.0, 2277 | 2283 | 2776 | 5077 | 5078 | 5079)
    }
    /// oid and the types that are oids of something.
    pub fn is_oid_like(self) -> bool {
        matches!(
            self,
            Type::OID
                | Type::REGPROC
                | Type::REGPROCEDURE
                | Type::REGOPER
                | Type::REGOPERATOR
                | Type::REGCLASS
                | Type::REGTYPE
                | Type::REGNAMESPACE
                | Type::REGROLE
        )
    }
    /// What messages and regtype call it: `format_type` without a modifier.
    pub fn sql_name(self) -> &'static str {
        match self.info() {
            Some(t) => t.sql_name,
            None if self == Type::NONE => "-",
            None => "???",
        }
    }
}

/// `format_type(oid, typmod)`: `numeric(10,2)`, `character varying(5)[]`, `timestamp(3) without time zone`.
pub fn format_type(ty: Type, typmod: i32) -> String {
    let Some(info) = ty.info() else { return ty.sql_name().to_owned() };
    let (base, array) = match ty.element() {
        Some(element) if info.storage != b'p' => (element, true),
        _ => (ty, false),
    };
    let mut out = match base {
        Type::BPCHAR if typmod < 0 => "bpchar".to_owned(),
        Type::BPCHAR => format!("character({})", typmod - 4),
        Type::VARCHAR if typmod >= 4 => format!("character varying({})", typmod - 4),
        Type::NUMERIC if typmod >= 4 => {
            let (precision, scale) = numeric_typmod(typmod);
            format!("numeric({precision},{scale})")
        }
        Type::TIME if typmod >= 0 => format!("time({typmod}) without time zone"),
        Type::TIMESTAMP if typmod >= 0 => format!("timestamp({typmod}) without time zone"),
        Type::TIMESTAMPTZ if typmod >= 0 => format!("timestamp({typmod}) with time zone"),
        Type::INTERVAL if typmod >= 0 => format!("interval{}", interval_typmod_out(typmod)),
        other => other.sql_name().to_owned(),
    };
    if array {
        out.push_str("[]");
    }
    out
}

/// Precision and scale of a numeric's modifier; the scale has 11 bits and a sign.
pub fn numeric_typmod(typmod: i32) -> (i32, i32) {
    let packed = typmod - 4;
    (packed >> 16 & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024)
}

// Bits of an interval's range, as in PostgreSQL's utils/timestamp.h.
const MONTH: i32 = 1 << 1;
const YEAR: i32 = 1 << 2;
const DAY: i32 = 1 << 3;
const HOUR: i32 = 1 << 10;
const MINUTE: i32 = 1 << 11;
const SECOND: i32 = 1 << 12;

/// Interval fields as written, with the range each stands for.
static INTERVAL_FIELDS: &[(&str, i32)] = &[
    ("year", YEAR),
    ("month", MONTH),
    ("day", DAY),
    ("hour", HOUR),
    ("minute", MINUTE),
    ("second", SECOND),
    ("year to month", YEAR | MONTH),
    ("day to hour", DAY | HOUR),
    ("day to minute", DAY | HOUR | MINUTE),
    ("day to second", DAY | HOUR | MINUTE | SECOND),
    ("hour to minute", HOUR | MINUTE),
    ("hour to second", HOUR | MINUTE | SECOND),
    ("minute to second", MINUTE | SECOND),
];

/// The modifier of `interval <fields>(precision)`, the fields in lower case (`day to second`; empty for all).
pub fn interval_typmod(fields: &str, precision: Option<i32>) -> Option<i32> {
    let range = if fields.is_empty() { 0x7fff } else { INTERVAL_FIELDS.iter().find(|(f, _)| *f == fields)?.1 };
    match precision {
        None if fields.is_empty() => Some(-1),
        None => Some(range << 16 | 0xffff),
        Some(p) => Some(range << 16 | p.clamp(0, 6)),
    }
}

fn interval_typmod_out(typmod: i32) -> String {
    let (range, precision) = (typmod >> 16 & 0x7fff, typmod & 0xffff);
    let mut out = String::new();
    if let Some((fields, _)) = INTERVAL_FIELDS.iter().find(|(_, r)| *r == range) {
        out.push(' ');
        out.push_str(fields);
    }
    if precision != 0xffff {
        out.push_str(&format!("({precision})"));
    }
    out
}

/// The modifier that `name(args)` gives: varchar(5), numeric(10,2), timestamp(3). Errors as PostgreSQL's typmodin functions.
pub fn typmod_in(ty: Type, args: &[i32]) -> Result<i32> {
    let bad = |m: String| SqlError::new(state::INVALID_PARAMETER_VALUE, m);
    let base = ty.element().unwrap_or(ty);
    let one = || match args {
        [n] => Ok(*n),
        _ => Err(bad("invalid type modifier".to_owned())),
    };
    match base {
        Type::VARCHAR | Type::BPCHAR => {
            let (n, name) = (one()?, if base == Type::VARCHAR { "varchar" } else { "char" });
            if n < 1 {
                return Err(bad(format!("length for type {name} must be at least 1")));
            }
            if n > 10_485_760 {
                return Err(bad(format!("length for type {name} cannot exceed 10485760")));
            }
            Ok(n + 4)
        }
        Type::NUMERIC => {
            let (precision, scale) = match args {
                [p] => (*p, 0),
                [p, s] => (*p, *s),
                _ => return Err(bad("invalid NUMERIC type modifier".to_owned())),
            };
            if !(1..=1000).contains(&precision) {
                return Err(bad(format!("NUMERIC precision {precision} must be between 1 and 1000")));
            }
            if !(-1000..=1000).contains(&scale) {
                return Err(bad(format!("NUMERIC scale {scale} must be between -1000 and 1000")));
            }
            Ok((precision << 16 | (scale & 0x7ff)) + 4)
        }
        Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL => {
            let n = one()?;
            if n < 0 {
                let name = match base {
                    Type::TIME => "TIME(%d) precision must not be negative",
                    Type::INTERVAL => "INTERVAL(%d) precision must not be negative",
                    Type::TIMESTAMP => "TIMESTAMP(%d) precision must not be negative",
                    _ => "TIMESTAMP(%d) WITH TIME ZONE precision must not be negative",
                };
                return Err(bad(name.replace("%d", &n.to_string())));
            }
            let n = n.min(6);
            Ok(if base == Type::INTERVAL { 0x7fff << 16 | n } else { n })
        }
        other => Err(SqlError::new(
            state::SYNTAX_ERROR,
            format!("type modifier is not allowed for type \"{}\"", other.info().map_or("???", |t| t.name)),
        )),
    }
}

/// A whole type name as text: `numeric(10, 2)[]`, `"char"`, `timestamp(3) with time zone`, `interval day to second`,
/// `pg_catalog.int4`. What regtype's input function and to_regtype accept.
///
/// # Errors
///
/// 42704 if there is no such type, 0A000 if only PostgreSQL has it, 42601 if it is no type name at all.
pub fn parse_type(text: &str) -> Result<TypeMod> {
    let invalid = || SqlError::new(state::SYNTAX_ERROR, format!("invalid type name \"{text}\""));
    let mut words: Vec<String> = Vec::new();
    let mut modifier: Option<Vec<i32>> = None;
    let (mut array, mut quoted, mut schema) = (false, false, None);
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            _ if c.is_ascii_whitespace() => {
                chars.next();
            }
            '"' => {
                chars.next();
                let mut word = String::new();
                loop {
                    match chars.next() {
                        Some('"') if chars.peek() == Some(&'"') => {
                            chars.next();
                            word.push('"');
                        }
                        Some('"') => break,
                        Some(c) => word.push(c),
                        None => return Err(invalid()),
                    }
                }
                quoted = true;
                words.push(word);
            }
            '.' => {
                chars.next();
                schema = Some(words.pop().ok_or_else(invalid)?);
                quoted = false;
            }
            '(' => {
                chars.next();
                let mut inside = String::new();
                loop {
                    match chars.next() {
                        Some(')') => break,
                        Some(c) => inside.push(c),
                        None => return Err(invalid()),
                    }
                }
                let args: Result<Vec<i32>, _> = inside.split(',').map(|n| n.trim().parse()).collect();
                modifier = Some(args.map_err(|_| invalid())?);
            }
            '[' => {
                chars.next();
                while chars.peek().is_some_and(|c| c.is_ascii_digit() || c.is_ascii_whitespace()) {
                    chars.next();
                }
                if chars.next() != Some(']') {
                    return Err(invalid());
                }
                array = true;
            }
            _ if c.is_alphabetic() || c == '_' => {
                let mut word = String::new();
                while let Some(&c) = chars.peek().filter(|c| c.is_alphanumeric() || **c == '_' || **c == '$') {
                    word.push(c.to_ascii_lowercase());
                    chars.next();
                }
                words.push(word);
            }
            _ => return Err(invalid()),
        }
    }
    if words.last().is_some_and(|w| w == "array") && words.len() > 1 && !quoted {
        words.pop();
        array = true;
    }
    if words.is_empty() {
        return Err(invalid());
    }
    let mut interval_fields = String::new();
    if words[0] == "interval" && words.len() > 1 && !quoted {
        interval_fields = words.split_off(1).join(" ");
    }
    let name = words.join(" ");
    let shown = if words.len() == 1 {
        schema.as_ref().map_or_else(|| name.clone(), |s| format!("{s}.{name}"))
    } else {
        name.clone()
    };
    let found = match schema.as_deref() {
        None if quoted => Type::by_typname(&name),
        None => Type::by_name(&name),
        Some("pg_catalog") => Type::by_typname(&name),
        Some(_) => None,
    };
    let Some(mut ty) = found else {
        if unsupported_name(&name) && schema.as_deref().is_none_or(|s| s == "pg_catalog") {
            return Err(SqlError::unsupported(format_args!("type {name}")));
        }
        if words.len() > 1 {
            return Err(SqlError::new(state::SYNTAX_ERROR, format!("syntax error at or near \"{}\"", words[1])));
        }
        return Err(SqlError::new(state::UNDEFINED_OBJECT, format!("type \"{shown}\" does not exist")));
    };
    let typmod = if ty == Type::INTERVAL && !interval_fields.is_empty() {
        interval_typmod(&interval_fields, modifier.and_then(|m| m.first().copied())).ok_or_else(invalid)?
    } else {
        match modifier {
            Some(m) if name == "float" && m.len() == 1 => {
                ty = if m[0] <= 24 { Type::FLOAT4 } else { Type::FLOAT8 };
                -1
            }
            Some(m) => typmod_in(ty, &m)?,
            // A bare char is char(1); bpchar stays unlimited.
            None if ty == Type::BPCHAR && name != "bpchar" => 5,
            None => -1,
        }
    };
    if array {
        let of = ty.array_of().or(ty.is_array().then_some(ty));
        ty = of.ok_or_else(|| SqlError::new(state::UNDEFINED_OBJECT, format!("type \"{name}[]\" does not exist")))?;
    }
    Ok(TypeMod { ty, typmod })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_closed() {
        assert!(TYPES.windows(2).all(|w| w[0].ty < w[1].ty));
        assert!(UNSUPPORTED.windows(2).all(|w| w[0] < w[1]));
        for t in TYPES {
            for other in [t.elem, t.array] {
                assert!(other == Type::NONE || other.info().is_some(), "{} refers to {other:?}", t.name);
            }
            if t.array != Type::NONE {
                assert_eq!(t.array.element(), Some(t.ty));
            }
            assert_eq!(Type::by_typname(t.name), Some(t.ty));
            assert_eq!(Type::by_name(t.sql_name), Some(t.ty), "{}", t.sql_name);
        }
    }

    #[test]
    fn names_are_found_as_sql_spells_them() {
        for (name, ty) in [
            ("int", Type::INT4),
            ("int8[]", Type::INT8_ARRAY),
            ("_text", Type::TEXT_ARRAY),
            ("char", Type::BPCHAR),
            ("\"char\"", Type::CHAR),
            ("pg_catalog.char", Type::CHAR),
            ("double precision", Type::FLOAT8),
            ("character varying", Type::VARCHAR),
            ("timestamp with time zone", Type::TIMESTAMPTZ),
            ("dec", Type::NUMERIC),
        ] {
            assert_eq!(Type::by_name(name), Some(ty), "{name}");
        }
        assert_eq!(Type::by_name("xml"), None);
        for name in ["jsonpath", "inet", "bit varying", "_xml", "xml[]", "time with time zone", "point", "xml", "money"]
        {
            assert!(unsupported_name(name), "{name}");
        }
        assert!(!unsupported_name("nosuch") && !unsupported_name("int4"));
        assert_eq!(Type::NAME.element(), None);
        assert_eq!(Type::INT2VECTOR.element(), Some(Type::INT2));
    }

    /// Expectations from PostgreSQL 15's format_type.
    #[test]
    fn format_type_prints_as_postgresql() {
        for (ty, typmod, text) in [
            (Type::BPCHAR, -1, "bpchar"),
            (Type::BPCHAR, 9, "character(5)"),
            (Type::VARCHAR, 9, "character varying(5)"),
            (Type::NUMERIC, 655_366, "numeric(10,2)"),
            (Type::NUMERIC_ARRAY, 655_366, "numeric(10,2)[]"),
            (Type::INTERVAL, -1, "interval"),
            (Type::TIMESTAMP, 3, "timestamp(3) without time zone"),
            (Type::INTERVAL, (4 << 16) | 3, "interval year(3)"),
            (Type(99999), -1, "???"),
            (Type::NONE, -1, "-"),
            (Type::INT2VECTOR, -1, "int2vector"),
            (Type::CHAR, -1, "\"char\""),
        ] {
            assert_eq!(format_type(ty, typmod), text);
        }
    }

    #[test]
    fn whole_type_names_parse() {
        for (text, ty, typmod) in [
            ("int4[][]", Type::INT4_ARRAY, -1),
            (" Character  Varying(3) ", Type::VARCHAR, 7),
            ("\"char\"", Type::CHAR, -1),
            ("char", Type::BPCHAR, 5),
            ("bpchar", Type::BPCHAR, -1),
            ("numeric(10, 2)", Type::NUMERIC, 655_366),
            ("timestamp(3) with time zone", Type::TIMESTAMPTZ, 3),
            ("interval day to second(3)", Type::INTERVAL, (7176 << 16) | 3),
            ("pg_catalog.int4", Type::INT4, -1),
            ("integer array", Type::INT4_ARRAY, -1),
        ] {
            assert_eq!(parse_type(text), Ok(TypeMod { ty, typmod }), "{text}");
        }
        assert_eq!(parse_type("nosuch").unwrap_err().state(), state::UNDEFINED_OBJECT);
        assert_eq!(parse_type("xml").unwrap_err().state(), state::FEATURE_NOT_SUPPORTED);
        assert_eq!(
            parse_type("numeric(1001)").unwrap_err().message(),
            "NUMERIC precision 1001 must be between 1 and 1000"
        );
    }
}
