//! What binding needs from outside, and what it gives back.

use std::cell::RefCell;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::error::{Result, SqlError, state};
use crate::functions::SessionCx;
use crate::ir::{Dml, Rel, RelKind};
use crate::types::Type;

/// The surroundings names and constants are resolved in.
pub struct BindEnv<'a> {
    /// Definitions the statement sees.
    pub catalog: Arc<Catalog>,
    /// Schema oids an unqualified name is looked up in, in order; pg_catalog included where PostgreSQL would search it.
    pub search_path: Vec<u32>,
    /// Types of `$n`: declared ones in, inferred ones out.
    pub params: &'a ParamTypes,
    /// Versions for AS OF.
    pub resolver: &'a dyn AsOfResolver,
    /// Settings and time: constants go through input functions here.
    pub session: &'a SessionCx,
}

/// Finds the versions that AS OF names.
pub trait AsOfResolver {
    /// The newest version committed at or before this time (microseconds since 2000-01-01 UTC).
    ///
    /// # Errors
    /// 22023 with the valid range in DETAIL when there is none.
    fn version_at(&self, micros: i64) -> Result<u64>;
    /// The definitions as of a version.
    ///
    /// # Errors
    /// 22023 with the valid range in DETAIL when it is no version of this database.
    fn catalog_at(&self, version: u64) -> Result<Arc<Catalog>>;
}

/// Types of a statement's parameters while it is bound.
#[derive(Debug, Default)]
pub struct ParamTypes {
    /// By number from 0; [`Type::UNKNOWN`] is one that is used but not known yet, [`Type::NONE`] one never seen.
    types: RefCell<Vec<Type>>,
    /// New parameters may be met.
    open: bool,
}

impl ParamTypes {
    /// No parameters: any `$n` is 42P02.
    pub fn none() -> Self {
        ParamTypes::default()
    }
    /// Parameters as PARSE or PREPARE declare them; [`Type::NONE`] and [`Type::UNKNOWN`] leave a type to be inferred, and there may be more.
    pub fn declared(types: Vec<Type>) -> Self {
        let types = types.into_iter().map(|t| if t == Type::UNKNOWN { Type::NONE } else { t }).collect();
        ParamTypes { types: RefCell::new(types), open: true }
    }
    /// Parameters whose types are settled: others are 42P02.
    pub fn fixed(types: Vec<Type>) -> Self {
        ParamTypes { types: RefCell::new(types), open: false }
    }
    /// The types when binding is over.
    ///
    /// # Errors
    /// 42P18 for a parameter that nothing told the type of.
    pub fn finish(&self) -> Result<Vec<Type>> {
        let types = self.types.borrow().clone();
        match types.iter().position(|t| *t == Type::NONE || *t == Type::UNKNOWN) {
            Some(i) => Err(SqlError::new(
                state::INDETERMINATE_DATATYPE,
                format!("could not determine data type of parameter ${}", i + 1),
            )),
            None => Ok(types),
        }
    }
    /// The type of parameter `number` (from 1) as known now: UNKNOWN if it is to be inferred.
    pub(super) fn reference(&self, number: u32) -> Result<Type> {
        let mut types = self.types.borrow_mut();
        let missing = || SqlError::new(state::UNDEFINED_PARAMETER, format!("there is no parameter ${number}"));
        let index = (number as usize).checked_sub(1).filter(|i| *i < 65535).ok_or_else(missing)?;
        if index >= types.len() {
            if !self.open {
                return Err(missing());
            }
            types.resize(index + 1, Type::NONE);
        }
        if types[index] == Type::NONE {
            types[index] = Type::UNKNOWN;
        }
        Ok(types[index])
    }
    /// Whether the type of a parameter (by index from 0) is known.
    pub(super) fn is_settled(&self, index: usize) -> bool {
        self.types.borrow().get(index).is_some_and(|t| *t != Type::UNKNOWN && *t != Type::NONE)
    }
    /// Settles an unknown parameter (by index from 0); returns what it was settled to before, if it was.
    pub(super) fn settle(&self, index: usize, ty: Type) -> Option<Type> {
        let mut types = self.types.borrow_mut();
        match types.get_mut(index) {
            Some(t) if *t == Type::UNKNOWN || *t == Type::NONE => {
                *t = ty;
                None
            }
            Some(t) => Some(*t),
            None => None,
        }
    }
}

/// A bound statement.
#[derive(Clone, Debug)]
pub enum Bound {
    /// Gives rows and changes nothing at its top (a WITH inside may change rows: [`Bound::writes`]).
    Query(Rel),
    /// INSERT, UPDATE or DELETE: a [`RelKind::Dml`], or a [`RelKind::With`] over one.
    Dml(Rel),
    /// Nothing to bind: the session carries it out from the syntax tree.
    Utility,
}

impl Bound {
    /// The relation, if it is one.
    pub fn rel(&self) -> Option<&Rel> {
        match self {
            Bound::Query(rel) | Bound::Dml(rel) => Some(rel),
            Bound::Utility => None,
        }
    }
    /// The change at the top.
    pub fn dml(&self) -> Option<&Arc<Dml>> {
        fn find(rel: &Rel) -> Option<&Arc<Dml>> {
            match &rel.kind {
                RelKind::Dml(dml) => Some(dml),
                RelKind::With { body, .. } => find(body),
                _ => None,
            }
        }
        match self {
            Bound::Dml(rel) => find(rel),
            _ => None,
        }
    }
    /// Whether running it can change rows.
    pub fn writes(&self) -> bool {
        match self {
            Bound::Dml(_) => true,
            Bound::Query(Rel { kind: RelKind::With { ctes, .. }, .. }) => {
                ctes.iter().any(|c| matches!(c.definition.kind, RelKind::Dml(_)))
            }
            _ => false,
        }
    }
}
