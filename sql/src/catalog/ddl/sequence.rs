//! CREATE SEQUENCE, ALTER SEQUENCE, and the sequences of serial and identity columns.

use super::DdlCx;
use crate::catalog::schema::{Relation, Sequence};
use crate::codec::keyspace;
use crate::error::{Result, SqlError, state};
use crate::parse::ast::{QName, SequenceOption};
use crate::session::Notice;
use crate::types::Type;
use crate::write::sequence::SequenceState;

/// CREATE SEQUENCE.
pub(super) fn create(
    name: &QName,
    if_not_exists: bool,
    temporary: bool,
    options: &[SequenceOption],
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    if temporary {
        return Err(SqlError::unsupported("CREATE TEMPORARY SEQUENCE"));
    }
    let schema = cx.creation_schema(name)?;
    if !cx.is_taken(schema, name.last(), if_not_exists)? {
        create_named(schema, name.last().to_owned(), Type::INT8, options, None, cx)?;
    }
    Ok("CREATE SEQUENCE")
}

/// Makes a sequence and its first state; returns its oid.
pub(super) fn create_named(
    schema: u32,
    name: String,
    ty: Type,
    options: &[SequenceOption],
    owner: Option<(u32, i16)>,
    cx: &mut DdlCx<'_>,
) -> Result<u32> {
    let oid = cx.change.new_oid();
    let blank = Sequence {
        oid,
        schema,
        name,
        ty: ty.0,
        start: 0,
        increment: 1,
        min: 0,
        max: 0,
        cycle: false,
        cache: 1,
        owner,
        comment: None,
    };
    let (sequence, restart) = apply(blank, options, true, cx)?;
    let start = restart.unwrap_or(sequence.start);
    set_state(oid, SequenceState { last: start, called: false }, cx)?;
    cx.change.put_sequence(sequence)?;
    Ok(oid)
}

/// Writes a sequence's state as part of the transaction, which has the sequence locked or made it itself.
pub(super) fn set_state(oid: u32, state: SequenceState, cx: &mut DdlCx<'_>) -> Result<()> {
    cx.sequences.close(oid);
    cx.host.own_sequence(oid);
    cx.txn.with(|t| Ok(state.put(oid, t)?))
}

/// ALTER SEQUENCE.
pub(super) fn alter(
    name: &QName,
    if_exists: bool,
    options: &[SequenceOption],
    cx: &mut DdlCx<'_>,
) -> Result<&'static str> {
    let Some(sequence) = find(name, if_exists, cx)? else { return Ok("ALTER SEQUENCE") };
    change(sequence, options, cx)?;
    Ok("ALTER SEQUENCE")
}

/// Applies options to a sequence that exists.
pub(super) fn change(sequence: Sequence, options: &[SequenceOption], cx: &mut DdlCx<'_>) -> Result<()> {
    let oid = sequence.oid;
    // Values reserved under the old definition are not to be given out under the new one.
    let state = match cx.host.is_own_sequence(oid) {
        true => SequenceState::parse(cx.txn.with(|t| Ok(t.get(&keyspace::sequence(oid))?))?.as_deref(), &sequence)?,
        false => {
            cx.sequences.close(oid);
            cx.sequences.current(&sequence, cx.database)?
        }
    };
    let (sequence, restart) = apply(sequence, options, false, cx)?;
    set_state(oid, restart.map_or(state, |last| SequenceState { last, called: false }), cx)?;
    cx.change.put_sequence(sequence)
}

/// A sequence by name.
pub(super) fn find(name: &QName, if_exists: bool, cx: &mut DdlCx<'_>) -> Result<Option<Sequence>> {
    match cx.find(name)? {
        Some(Relation::Sequence(s)) => Ok(Some(Sequence::clone(&s))),
        Some(other) => Err(SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not a sequence", other.name()))),
        None if if_exists => {
            cx.notices.push(Notice::new(format!("relation \"{name}\" does not exist, skipping")));
            Ok(None)
        }
        None => Err(SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))),
    }
}

fn invalid(message: String) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message)
}

/// The least and greatest value of an integer type, and its name.
fn limits(ty: u32) -> (i64, i64, &'static str) {
    match Type(ty) {
        Type::INT2 => (i64::from(i16::MIN), i64::from(i16::MAX), "smallint"),
        Type::INT4 => (i64::from(i32::MIN), i64::from(i32::MAX), "integer"),
        _ => (i64::MIN, i64::MAX, "bigint"),
    }
}

/// `init_params` of PostgreSQL's sequence.c: the sequence with the options, and the value to restart with.
fn apply(
    mut s: Sequence,
    options: &[SequenceOption],
    is_new: bool,
    cx: &mut DdlCx<'_>,
) -> Result<(Sequence, Option<i64>)> {
    let old_limits = limits(s.ty);
    let (mut reset_max, mut reset_min) = (is_new, is_new);
    let (mut max, mut min, mut start, mut restart) = (None, None, None, None);
    for option in options {
        match option {
            SequenceOption::As(name) => {
                let ty = Type::by_name(name).filter(|t| matches!(*t, Type::INT2 | Type::INT4 | Type::INT8));
                let ty = ty.ok_or_else(|| invalid("sequence type must be smallint, integer, or bigint".into()))?;
                // Limits that are the old type's become the new one's.
                reset_max |= s.increment > 0 && s.max == old_limits.1;
                reset_min |= s.increment < 0 && s.min == old_limits.0;
                s.ty = ty.0;
            }
            SequenceOption::Increment(0) => return Err(invalid("INCREMENT must not be zero".into())),
            SequenceOption::Increment(by) => s.increment = *by,
            SequenceOption::Cycle(cycle) => s.cycle = *cycle,
            SequenceOption::MaxValue(value) => max = Some(*value),
            SequenceOption::MinValue(value) => min = Some(*value),
            SequenceOption::Start(value) => start = Some(*value),
            SequenceOption::Restart(value) => restart = Some(*value),
            SequenceOption::Cache(n) if *n <= 0 => {
                return Err(invalid(format!("CACHE ({n}) must be greater than zero")));
            }
            SequenceOption::Cache(n) => s.cache = *n,
            SequenceOption::OwnedBy(owner) => s.owner = owner_of(owner.as_ref(), &s, cx)?,
            SequenceOption::SequenceName(_) => {}
        }
    }
    let (least, greatest, type_name) = limits(s.ty);
    s.max = match max {
        Some(Some(value)) => value,
        None if !reset_max => s.max,
        _ if s.increment > 0 => greatest,
        _ => -1,
    };
    if s.max < least || s.max > greatest {
        return Err(invalid(format!("MAXVALUE ({}) is out of range for sequence data type {type_name}", s.max)));
    }
    s.min = match min {
        Some(Some(value)) => value,
        None if !reset_min => s.min,
        _ if s.increment > 0 => 1,
        _ => least,
    };
    if s.min < least || s.min > greatest {
        return Err(invalid(format!("MINVALUE ({}) is out of range for sequence data type {type_name}", s.min)));
    }
    if s.min >= s.max {
        return Err(invalid(format!("MINVALUE ({}) must be less than MAXVALUE ({})", s.min, s.max)));
    }
    match start {
        Some(value) => s.start = value,
        None if is_new => s.start = if s.increment > 0 { s.min } else { s.max },
        None => {}
    }
    in_range("START", s.start, &s)?;
    let restart = restart.map(|value| value.unwrap_or(s.start));
    if let Some(value) = restart {
        in_range("RESTART", value, &s)?;
    }
    Ok((s, restart))
}

fn in_range(what: &str, value: i64, s: &Sequence) -> Result<()> {
    if value < s.min {
        return Err(invalid(format!("{what} value ({value}) cannot be less than MINVALUE ({})", s.min)));
    }
    if value > s.max {
        return Err(invalid(format!("{what} value ({value}) cannot be greater than MAXVALUE ({})", s.max)));
    }
    Ok(())
}

/// OWNED BY table.column.
fn owner_of(name: Option<&QName>, s: &Sequence, cx: &mut DdlCx<'_>) -> Result<Option<(u32, i16)>> {
    let Some(name) = name else { return Ok(None) };
    let Some((column, table)) = name.parts.split_last().filter(|(_, t)| !t.is_empty()) else {
        return Err(SqlError::new(state::SYNTAX_ERROR, "invalid OWNED BY option")
            .hint("Specify OWNED BY table.column or OWNED BY NONE."));
    };
    let table_name = QName { parts: table.to_vec(), pos: name.pos };
    let missing = || SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{table_name}\" does not exist"));
    let table = cx.table(&table_name, false)?.ok_or_else(missing)?;
    if table.schema != s.schema {
        return Err(SqlError::new(
            state::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "sequence must be in same schema as table it is linked to",
        ));
    }
    let missing = || {
        SqlError::new(
            state::UNDEFINED_COLUMN,
            format!("column \"{column}\" of relation \"{}\" does not exist", table.name),
        )
    };
    let (_, column) = table.column(column).ok_or_else(missing)?;
    let attnum = column.attnum;
    // The column knows its sequence too; a default that calls nextval is written apart.
    let mut changed = crate::catalog::Table::clone(&table);
    if let Some(slot) = changed.slots.iter_mut().find(|c| c.attnum == attnum) {
        slot.sequence = Some(s.oid);
    }
    cx.change.put_table(changed)?;
    Ok(Some((table.oid, attnum)))
}
