//! Writing a jsonb from front to back.
//!
//! Containers are closed by putting their header before what was written since they were opened; an object's members are brought into order
//! then, the last of equal names staying.

use super::walk::{Item, Token};
use super::{
    ARRAY, CONTAINER_BYTES_MAX, DEPTH_MAX, FALSE, Jsonb, NULL, NUMBER, OBJECT, STRING, TRUE, put_varint, too_deep,
};
use crate::error::{Result, SqlError, state};
use crate::types::Numeric;

/// A document under construction: values and names in the order a text would have them.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    out: Vec<u8>,
    open: Vec<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    start: usize,
    /// Elements so far.
    count: usize,
    /// Of an object: where each member starts, and where its name does and ends.
    members: Option<Vec<[usize; 3]>>,
}

impl Builder {
    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        let members: usize = self.open.iter().filter_map(|o| o.members.as_ref()).map(|m| m.capacity() * 24).sum();
        self.out.capacity() + self.open.capacity() * size_of::<Open>() + members
    }
    fn value(&mut self, tag: u8) {
        if let Some(top) = self.open.last_mut() {
            top.count += usize::from(top.members.is_none());
        }
        self.out.push(tag);
    }
    /// null
    pub fn null(&mut self) {
        self.value(NULL);
    }
    /// true or false
    pub fn bool(&mut self, b: bool) {
        self.value(if b { TRUE } else { FALSE });
    }
    /// A number; infinities and NaN, which JSON has none of, as strings.
    pub fn number(&mut self, n: &Numeric) -> Result<()> {
        let text = n.to_string();
        if !n.is_finite() {
            return self.string(&text);
        }
        self.value(NUMBER);
        put_varint(text.len(), &mut self.out);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }
    /// A number that is already written as numeric prints it.
    pub(crate) fn digits(&mut self, text: &str) {
        self.value(NUMBER);
        put_varint(text.len(), &mut self.out);
        self.out.extend_from_slice(text.as_bytes());
    }
    /// A string.
    ///
    /// # Errors
    /// 54000 if it is too long.
    pub fn string(&mut self, s: &str) -> Result<()> {
        if s.len() > CONTAINER_BYTES_MAX {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "string too long to represent as jsonb string")
                .detail(format!(
                    "Due to an implementation restriction, jsonb strings cannot exceed {CONTAINER_BYTES_MAX} bytes."
                )));
        }
        self.value(STRING);
        put_varint(s.len(), &mut self.out);
        self.out.extend_from_slice(s.as_bytes());
        Ok(())
    }
    /// A copy of a value of another document.
    pub fn item(&mut self, item: Item<'_>) -> Result<()> {
        if item.is_container() && self.open.len() + item.depth() > DEPTH_MAX {
            return Err(too_deep());
        }
        let Some((tag, rest)) = item.bytes().split_first() else { return Ok(()) };
        self.value(*tag);
        self.out.extend_from_slice(rest);
        Ok(())
    }
    /// A step of a walk through another document.
    pub fn token(&mut self, token: Token<'_>) -> Result<()> {
        match token {
            Token::Null => self.null(),
            Token::Bool(b) => self.bool(b),
            Token::Number(n) => self.digits(n),
            Token::String(s) => self.string(s)?,
            Token::Name(s) => self.name(s)?,
            Token::Array(_) => self.begin_array()?,
            Token::Object(_) => self.begin_object()?,
            Token::EndArray | Token::EndObject => self.end()?,
        }
        Ok(())
    }
    /// Opens an array.
    ///
    /// # Errors
    /// 54001 beyond [`DEPTH_MAX`].
    pub fn begin_array(&mut self) -> Result<()> {
        self.begin(None)
    }
    /// Opens an object; each value in it must come behind its name.
    ///
    /// # Errors
    /// 54001 beyond [`DEPTH_MAX`].
    pub fn begin_object(&mut self) -> Result<()> {
        self.begin(Some(Vec::new()))
    }
    fn begin(&mut self, members: Option<Vec<[usize; 3]>>) -> Result<()> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep());
        }
        if let Some(top) = self.open.last_mut() {
            top.count += usize::from(top.members.is_none());
        }
        self.open.push(Open { start: self.out.len(), count: 0, members });
        Ok(())
    }
    /// The name of the value that comes next.
    ///
    /// # Errors
    /// 54000 if it is too long.
    pub fn name(&mut self, name: &str) -> Result<()> {
        if name.len() > CONTAINER_BYTES_MAX {
            return Err(SqlError::new(
                state::PROGRAM_LIMIT_EXCEEDED,
                "string too long to represent as jsonb object key",
            ));
        }
        let start = self.out.len();
        put_varint(name.len(), &mut self.out);
        let at = self.out.len();
        self.out.extend_from_slice(name.as_bytes());
        if let Some(members) = self.open.last_mut().and_then(|o| o.members.as_mut()) {
            members.push([start, at, self.out.len()]);
        }
        Ok(())
    }
    /// Closes the innermost container.
    ///
    /// # Errors
    /// 54000 if it is too large.
    pub fn end(&mut self) -> Result<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let (tag, what) = if open.members.is_some() { (OBJECT, "object") } else { (ARRAY, "array") };
        if self.out.len() - open.start > CONTAINER_BYTES_MAX {
            let message =
                format!("total size of jsonb {what} elements exceeds the maximum of {CONTAINER_BYTES_MAX} bytes");
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message));
        }
        let count = match open.members {
            Some(members) => self.sort(open.start, members),
            None => open.count,
        };
        let mut counted = Vec::with_capacity(5);
        put_varint(count, &mut counted);
        let mut header = vec![tag];
        put_varint(counted.len() + self.out.len() - open.start, &mut header);
        header.append(&mut counted);
        self.out.splice(open.start..open.start, header);
        Ok(())
    }
    /// Brings the members written from `start` on into order, once each; how many there are.
    fn sort(&mut self, start: usize, members: Vec<[usize; 3]>) -> usize {
        let out = &self.out;
        let key = |m: &[usize; 3]| (m[2] - m[1], &out[m[1]..m[2]]);
        if members.windows(2).all(|w| key(&w[0]) < key(&w[1])) {
            return members.len();
        }
        let ends = members.iter().skip(1).map(|m| m[0]).chain([out.len()]);
        let mut sorted: Vec<([usize; 3], usize)> = members.iter().copied().zip(ends).collect();
        sorted.sort_by(|a, b| key(&a.0).cmp(&key(&b.0)));
        let mut body = Vec::with_capacity(out.len() - start);
        let mut count = 0;
        for (i, (member, end)) in sorted.iter().enumerate() {
            // The sort is stable: of equal names the last was written last.
            if sorted.get(i + 1).is_some_and(|(next, _)| key(next) == key(member)) {
                continue;
            }
            body.extend_from_slice(&out[member[0]..*end]);
            count += 1;
        }
        self.out.truncate(start);
        self.out.extend_from_slice(&body);
        count
    }
    /// The document, all containers closed.
    pub fn finish(self) -> Jsonb {
        debug_assert!(self.open.is_empty(), "a container is open");
        Jsonb(self.out.into())
    }
}
