//! What a function means when it is the comparison of a btree operator class.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use crate::exec::code::CompareOp;
use crate::exec::value;
use crate::functions::registry::{ScalarFn, registry};
use crate::types::Type;

/// A comparison operator of the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub op: CompareOp,
    pub left: Type,
    pub right: Type,
}

/// The comparison that a function does, if it is behind `=`, `<>`, `<`, `<=`, `>` or `>=`.
pub(crate) fn comparison(func: &'static ScalarFn) -> Option<Comparison> {
    static BY_FUNCTION: OnceLock<FxHashMap<usize, Comparison>> = OnceLock::new();
    let table = BY_FUNCTION.get_or_init(|| {
        let mut table = FxHashMap::default();
        for (name, op) in [
            ("=", CompareOp::Eq),
            ("<>", CompareOp::Ne),
            ("<", CompareOp::Lt),
            ("<=", CompareOp::Le),
            (">", CompareOp::Gt),
            (">=", CompareOp::Ge),
        ] {
            for operator in registry().operators.get(name).into_iter().flatten() {
                table.entry(std::ptr::from_ref(operator.func).addr()).or_insert(Comparison {
                    op,
                    left: operator.left,
                    right: operator.right,
                });
            }
        }
        table
    });
    table.get(&std::ptr::from_ref(func).addr()).copied()
}

impl Comparison {
    /// Whether values of its two types, as they are, order and hash as it compares: then joins may hash them.
    pub fn hashes(&self) -> bool {
        value::family(self.left) == value::family(self.right) && value::hashable(self.left) && !pseudo(self.left)
    }
    /// Whether `exec::value` compares values of these types as the function does.
    pub fn is_native(&self) -> bool {
        value::family(self.left) == value::family(self.right)
            && !value::needs_normalising(self.left)
            && !pseudo(self.left)
            && self.left != Type::RECORD
            && self.left != Type::CHAR
    }
}

/// Types that stand for others: what is compared is known by the arguments only.
fn pseudo(ty: Type) -> bool {
    matches!(
        ty,
        Type::ANY
            | Type::ANYELEMENT
            | Type::ANYARRAY
            | Type::ANYNONARRAY
            | Type::ANYCOMPATIBLE
            | Type::ANYCOMPATIBLEARRAY
    )
}
