//! Which of several functions or operators of one name is meant: PostgreSQL's `func_select_candidate`, and polymorphic types.

use super::coerce::{can_coerce, common_type};
use crate::error::{Result, SqlError, state};
use crate::functions::registry::CastContext;
use crate::types::Type;

/// anycompatiblenonarray.
const ANYCOMPATIBLENONARRAY: Type = Type(5079);

/// The outcome of choosing.
pub(super) enum Choice {
    /// This candidate, by index.
    One(usize),
    None,
    Ambiguous,
}

/// Chooses among candidates by the types of the arguments. Each candidate is its argument types, as many as there are arguments.
pub(super) fn choose(args: &[Type], candidates: &[&[Type]]) -> Choice {
    if let Some(exact) = candidates.iter().position(|c| *c == args) {
        return Choice::One(exact);
    }
    let fitting: Vec<usize> = (0..candidates.len()).filter(|i| fits(args, candidates[*i])).collect();
    match fitting[..] {
        [] => Choice::None,
        [one] => Choice::One(one),
        _ => match select(args, candidates, fitting) {
            Some(one) => Choice::One(one),
            None => Choice::Ambiguous,
        },
    }
}

/// Whether every argument may be converted implicitly to what the candidate declares.
fn fits(args: &[Type], declared: &[Type]) -> bool {
    args.len() == declared.len()
        && args.iter().zip(declared).all(|(a, d)| can_coerce(*a, *d, CastContext::Implicit))
        && (!declared.iter().any(|d| d.is_polymorphic())
            // Where nothing tells the type the candidate is still the one meant, and the call fails for that.
            || args.iter().all(|a| *a == Type::UNKNOWN)
            || resolve_polymorphic(args, declared, Type::NONE).is_ok())
}

/// Keeps the candidates with the highest count.
fn keep_best(candidates: Vec<usize>, mut count: impl FnMut(usize) -> usize) -> Vec<usize> {
    let counts: Vec<usize> = candidates.iter().map(|c| count(*c)).collect();
    let best = counts.iter().max().copied().unwrap_or(0);
    candidates.into_iter().zip(counts).filter(|(_, n)| *n == best).map(|(c, _)| c).collect()
}

fn select(args: &[Type], candidates: &[&[Type]], fitting: Vec<usize>) -> Option<usize> {
    let known = |i: usize| args[i] != Type::UNKNOWN;
    // Most exact matches; then most exact or preferred ones.
    let mut left =
        keep_best(fitting, |c| (0..args.len()).filter(|i| known(*i) && candidates[c][*i] == args[*i]).count());
    if let [one] = left[..] {
        return Some(one);
    }
    left = keep_best(left, |c| {
        (0..args.len())
            .filter(|i| {
                let declared = candidates[c][*i];
                known(*i)
                    && (declared == args[*i] || (declared.is_preferred() && declared.category() == args[*i].category()))
            })
            .count()
    });
    if let [one] = left[..] {
        return Some(one);
    }
    if (0..args.len()).all(known) {
        return None;
    }
    // Unknown arguments: the category the candidates agree on, string if any takes one.
    let mut resolved = true;
    let mut slots: Vec<Option<(u8, bool)>> = vec![None; args.len()];
    for i in (0..args.len()).filter(|i| !known(*i)) {
        let mut category = 0;
        let mut preferred = false;
        let mut conflict = false;
        for &c in &left {
            let declared = candidates[c][i];
            let (cat, pref) = (category_of(declared), declared.is_preferred());
            if category == 0 {
                (category, preferred) = (cat, pref);
            } else if cat == category {
                preferred |= pref;
            } else if cat == b'S' {
                (category, preferred, conflict) = (cat, pref, false);
            } else if category != b'S' {
                conflict = true;
            }
        }
        if conflict {
            resolved = false;
            break;
        }
        slots[i] = Some((category, preferred));
    }
    if resolved {
        let matching: Vec<usize> = left
            .iter()
            .copied()
            .filter(|c| {
                slots.iter().enumerate().all(|(i, slot)| match slot {
                    None => true,
                    Some((category, preferred)) => {
                        let declared = candidates[*c][i];
                        category_of(declared) == *category && (!preferred || declared.is_preferred())
                    }
                })
            })
            .collect();
        if !matching.is_empty() {
            left = matching;
        }
        if let [one] = left[..] {
            return Some(one);
        }
    }
    // If all known arguments have one type, perhaps the unknown ones are of it too.
    let mut types = args.iter().copied().filter(|t| *t != Type::UNKNOWN);
    let first = types.next()?;
    if types.any(|t| t != first) {
        return None;
    }
    let assumed = vec![first; args.len()];
    let mut accepting = left.into_iter().filter(|c| fits(&assumed, candidates[*c]));
    match (accepting.next(), accepting.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// Category of a declared type; that of the pseudo-types is P.
fn category_of(ty: Type) -> u8 {
    if ty.is_polymorphic() || ty == Type::ANY { b'P' } else { ty.category() }
}

/// The actual types of a polymorphic call: what each declared argument type and the declared result stand for.
///
/// # Errors
/// 42804 when the arguments do not agree, or nothing tells the type.
pub(super) fn resolve_polymorphic(args: &[Type], declared: &[Type], ret: Type) -> Result<(Vec<Type>, Type)> {
    let mismatch = |message: String| SqlError::new(state::DATATYPE_MISMATCH, message);
    let (mut element, mut array) = (None::<Type>, None::<Type>);
    let mut compatible: Vec<Type> = Vec::new();
    let (mut any_family, mut compatible_family) = (false, false);
    let mut not_array = false;
    for (actual, wanted) in args.iter().zip(declared) {
        match *wanted {
            Type::ANYELEMENT | Type::ANYNONARRAY => {
                any_family = true;
                not_array |= *wanted == Type::ANYNONARRAY;
                if *actual != Type::UNKNOWN {
                    if element.is_some_and(|e| e != *actual) {
                        return Err(mismatch("arguments declared \"anyelement\" are not all alike".into())
                            .detail(format!("{} versus {}", element.map_or("", Type::sql_name), actual.sql_name())));
                    }
                    element = Some(*actual);
                }
            }
            Type::ANYARRAY => {
                any_family = true;
                if *actual != Type::UNKNOWN {
                    if array.is_some_and(|a| a != *actual) {
                        return Err(mismatch("arguments declared \"anyarray\" are not all alike".into())
                            .detail(format!("{} versus {}", array.map_or("", Type::sql_name), actual.sql_name())));
                    }
                    array = Some(*actual);
                }
            }
            Type::ANYCOMPATIBLE | ANYCOMPATIBLENONARRAY => {
                compatible_family = true;
                if *actual != Type::UNKNOWN {
                    compatible.push(*actual);
                }
            }
            Type::ANYCOMPATIBLEARRAY => {
                compatible_family = true;
                if *actual != Type::UNKNOWN {
                    match actual.element() {
                        Some(e) => compatible.push(e),
                        None => {
                            return Err(mismatch(format!(
                                "argument declared anycompatiblearray is not an array but type {}",
                                actual.sql_name()
                            )));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(array) = array {
        let of_array = array.element().ok_or_else(|| {
            mismatch(format!("argument declared anyarray is not an array but type {}", array.sql_name()))
        })?;
        if element.is_some_and(|e| e != of_array) {
            return Err(mismatch(
                "argument declared anyarray is not consistent with argument declared anyelement".into(),
            )
            .detail(format!("{} versus {}", array.sql_name(), element.map_or("", Type::sql_name))));
        }
        element = Some(of_array);
    }
    if any_family && element.is_none() {
        return Err(mismatch("could not determine polymorphic type because input has type unknown".into()));
    }
    if let Some(e) = element.filter(|e| not_array && e.is_array()) {
        return Err(mismatch(format!("type matched to anynonarray is an array type: {}", e.sql_name())));
    }
    let common =
        if compatible_family {
            let common =
                common_type(&compatible).map_err(|(a, b)| {
                    mismatch("arguments of anycompatible family cannot be cast to a common type".into())
                        .detail(format!("{} versus {}", a.sql_name(), b.sql_name()))
                })?;
            if compatible.iter().any(|c| !can_coerce(*c, common, CastContext::Implicit)) {
                return Err(mismatch("arguments of anycompatible family cannot be cast to a common type".into()));
            }
            Some(common)
        } else {
            None
        };
    let array_of = |t: Option<Type>| {
        t.and_then(Type::array_of).ok_or_else(|| {
            SqlError::new(
                state::UNDEFINED_OBJECT,
                format!("could not find array type for data type {}", t.map_or("unknown", Type::sql_name)),
            )
        })
    };
    let actual = |wanted: Type| -> Result<Type> {
        Ok(match wanted {
            Type::ANYELEMENT | Type::ANYNONARRAY => element.unwrap_or(Type::UNKNOWN),
            Type::ANYARRAY => match array {
                Some(array) => array,
                None => array_of(element)?,
            },
            Type::ANYCOMPATIBLE | ANYCOMPATIBLENONARRAY => common.unwrap_or(Type::TEXT),
            Type::ANYCOMPATIBLEARRAY => array_of(common)?,
            other => other,
        })
    };
    let resolved = declared.iter().map(|d| actual(*d)).collect::<Result<Vec<_>>>()?;
    Ok((resolved, actual(ret)?))
}
