//! Rows, descriptions, errors and notices as wire bytes.

use bytes::{BufMut, BytesMut};
use pgbee_sql::SqlError;
use pgbee_sql::error::Result;
use pgbee_sql::functions::SessionCx;
use pgbee_sql::ir::Field;
use pgbee_sql::session::Notice;
use pgbee_sql::types::{Datum, io};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

/// Appends a DataRow. The bytes of each value are written in place: length words are filled in afterwards.
///
/// # Errors
/// A value that has no binary form; nothing is appended then.
pub fn data_row(
    row: &[Datum],
    fields: &[Field],
    binary: &[bool],
    cx: &SessionCx,
    scratch: &mut Vec<u8>,
    out: &mut BytesMut,
) -> Result<()> {
    let start = out.len();
    out.put_u8(b'D');
    out.put_u32(0);
    out.put_u16(fields.len() as u16);
    for ((value, field), binary) in row.iter().zip(fields).zip(binary) {
        if value.is_null() {
            out.put_i32(-1);
            continue;
        }
        scratch.clear();
        if *binary {
            if let Err(error) = io::binary_out(value, field.ty.ty, scratch) {
                out.truncate(start);
                return Err(error);
            }
        } else {
            io::write_text(value, field.ty.ty, cx, scratch);
        }
        out.put_u32(scratch.len() as u32);
        out.put_slice(scratch);
    }
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Appends a CopyData.
pub fn copy_data(data: &[u8], out: &mut BytesMut) {
    out.put_u8(b'd');
    out.put_u32(data.len() as u32 + 4);
    out.put_slice(data);
}

/// A RowDescription.
pub fn row_description(fields: &[Field], binary: Option<&[bool]>) -> PgWireBackendMessage {
    let describe = |(i, field): (usize, &Field)| {
        let size = field.ty.ty.info().map_or(-1, |info| info.len);
        let format = i16::from(binary.is_some_and(|b| b.get(i).copied().unwrap_or(false)));
        FieldDescription::new(
            field.name.to_string(),
            field.table_oid as i32,
            field.attnum,
            field.ty.ty.0,
            size,
            field.ty.typmod,
            format,
        )
    };
    PgWireBackendMessage::RowDescription(RowDescription::new(fields.iter().enumerate().map(describe).collect()))
}

fn report_fields(severity: &str, error: &SqlError) -> Vec<(u8, String)> {
    let report = &error.0;
    // No field may hold a NUL: it would end there.
    let clean = |text: &str| text.replace('\0', "\\0");
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', report.state.to_owned()),
        (b'M', clean(&report.message)),
    ];
    let more = [
        (b'D', &report.detail),
        (b'H', &report.hint),
        (b'W', &report.context),
        (b's', &report.schema),
        (b't', &report.table),
        (b'c', &report.column),
        (b'n', &report.constraint),
    ];
    for (code, value) in more {
        if let Some(text) = value {
            fields.push((code, clean(text)));
        }
    }
    if let Some(position) = report.position {
        fields.push((b'P', position.to_string()));
    }
    if let Some(routine) = report.routine {
        fields.push((b'R', routine.to_owned()));
    }
    fields
}

/// An ErrorResponse; severity ERROR or FATAL.
pub fn error_response(severity: &str, error: &SqlError) -> PgWireBackendMessage {
    PgWireBackendMessage::ErrorResponse(ErrorResponse::new(report_fields(severity, error)))
}

/// A NoticeResponse.
pub fn notice_response(notice: &Notice) -> PgWireBackendMessage {
    PgWireBackendMessage::NoticeResponse(NoticeResponse::new(report_fields(notice.severity, &notice.report)))
}
