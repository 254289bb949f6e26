//! Rows gathered into one value: json_agg, json_object_agg, jsonb_agg, jsonb_object_agg.
//!
//! Of no rows the result is NULL. The text forms have the blanks PostgreSQL writes: `[1, 2]`, `{ "a" : 1, "b" : 2 }`.

use super::super::FnCx;
use super::super::args::is_null;
use super::super::grow::check_len;
use super::super::registry::{AggState, AggregateFn, Registry};
use super::render::{add, arg_type, key, write};
use super::{B, J, invalid};
use crate::error::{Result, SqlError, state};
use crate::types::json::{Builder, quote};
use crate::types::{Datum, Type};

/// Adds them.
pub(super) fn register(r: &mut Registry) {
    let mut collect = |name, args, ret, new| {
        r.aggregate(AggregateFn { name, args, variadic: None, ret, strict: false, ordered_set: None, new })
    };
    const E: &[Type] = &[Type::ANYELEMENT];
    const PAIR: &[Type] = &[Type::ANY, Type::ANY];
    collect("json_agg", E, J, |_| Box::new(Text::default()));
    collect("json_object_agg", PAIR, J, |_| Box::new(TextObject::default()));
    collect("jsonb_agg", E, B, |_| Box::new(Binary::default()));
    collect("jsonb_object_agg", PAIR, B, |_| Box::new(Binary::default()));
}

#[derive(Default)]
struct Text(String);

impl AggState for Text {
    fn update(&mut self, a: &[Datum], cx: &FnCx<'_>) -> Result<()> {
        let ty = arg_type(cx, 0);
        if self.0.is_empty() {
            self.0.push('[');
        } else {
            self.0.push_str(", ");
            if !is_null(a, 0) && (ty.is_array() || ty == Type::RECORD) {
                self.0.push_str("\n ");
            }
        }
        write(&a[0], ty, cx.session, false, &mut self.0)
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(if self.0.is_empty() { Datum::Null } else { Datum::text(format!("{}]", self.0)) })
    }
    fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}

#[derive(Default)]
struct TextObject(String);

impl AggState for TextObject {
    fn update(&mut self, a: &[Datum], cx: &FnCx<'_>) -> Result<()> {
        self.0.push_str(if self.0.is_empty() { "{ " } else { ", " });
        if is_null(a, 0) {
            return Err(invalid("field name must not be null"));
        }
        quote(&key(&a[0], arg_type(cx, 0), cx.session)?, &mut self.0);
        self.0.push_str(" : ");
        write(&a[1], arg_type(cx, 1), cx.session, false, &mut self.0)?;
        check_len(self.0.len())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        Ok(if self.0.is_empty() { Datum::Null } else { Datum::text(format!("{} }}", self.0)) })
    }
    fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}

/// An array of the one argument, or an object of the two.
#[derive(Default)]
struct Binary {
    made: Builder,
    any: bool,
}

impl AggState for Binary {
    fn update(&mut self, a: &[Datum], cx: &FnCx<'_>) -> Result<()> {
        let object = a.len() > 1;
        if !self.any {
            if object { self.made.begin_object() } else { self.made.begin_array() }?;
            self.any = true;
        }
        if object {
            if is_null(a, 0) {
                return Err(invalid("field name must not be null"));
            }
            self.made.name(&key(&a[0], arg_type(cx, 0), cx.session)?)?;
        }
        let last = a.len() - 1;
        add(&a[last], arg_type(cx, last), cx.session, &mut self.made)?;
        if self.made.heap_bytes() > 0x3fff_ffff {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "requested length too large"));
        }
        Ok(())
    }
    fn finish(&mut self, _: &FnCx<'_>) -> Result<Datum> {
        if !self.any {
            return Ok(Datum::Null);
        }
        let mut made = self.made.clone();
        made.end()?;
        Ok(Datum::Jsonb(made.finish()))
    }
    fn finish_last(mut self: Box<Self>, _: &FnCx<'_>) -> Result<Datum> {
        if !self.any {
            return Ok(Datum::Null);
        }
        self.made.end()?;
        Ok(Datum::Jsonb(self.made.finish()))
    }
    fn heap_bytes(&self) -> usize {
        self.made.heap_bytes()
    }
}
