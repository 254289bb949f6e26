//! Records and fields, cut at every place the data could be cut.

use super::lines::{Splitter, csv_fields, text_fields};
use super::options::CopyOptions;
use crate::parse::ast::DefValue;

fn options(list: &[(&str, &str)]) -> CopyOptions {
    let list: Vec<_> = list.iter().map(|(n, v)| ((*n).to_owned(), DefValue::String((*v).to_owned()))).collect();
    CopyOptions::new(&list, true).unwrap()
}

type Rows = Vec<Vec<Option<String>>>;

/// Rows of `data` when it comes in two pieces, cut at `cut`.
fn read(data: &[u8], options: &CopyOptions, cut: usize) -> Result<Rows, String> {
    let (mut splitter, mut buffer, mut rows) = (Splitter::new(options), Vec::new(), Vec::new());
    for (piece, end) in [(&data[..cut], false), (&data[cut..], true)] {
        buffer.extend_from_slice(piece);
        while let Some(record) = splitter.next(&buffer, end).map_err(|e| e.message().to_owned())? {
            let (mut scratch, mut fields) = (Vec::new(), Vec::new());
            let bytes = &buffer[..record.len];
            match options.format {
                super::Format::Csv => csv_fields(bytes, options, &[], &[], &mut scratch, &mut fields)
                    .map_err(|e| e.message().to_owned())?,
                _ => text_fields(bytes, options, &mut scratch, &mut fields),
            }
            rows.push(fields.into_iter().map(|f| f.map(|r| String::from_utf8(scratch[r].to_vec()).unwrap())).collect());
            buffer.drain(..record.taken);
        }
    }
    Ok(rows)
}

fn check(data: &str, options: &CopyOptions, expected: &[&[Option<&str>]]) {
    let expected: Rows = expected.iter().map(|r| r.iter().map(|f| f.map(str::to_owned)).collect()).collect();
    for cut in 0..=data.len() {
        assert_eq!(read(data.as_bytes(), options, cut).unwrap(), expected, "{data:?} cut at {cut}");
    }
}

#[test]
fn text() {
    let o = options(&[]);
    check("1\ta\n2\t\\N\n", &o, &[&[Some("1"), Some("a")], &[Some("2"), None]]);
    check("a\\tb\\\\\\n\\101\\x41\\x\\q\t\n", &o, &[&[Some("a\tb\\\nAAxq"), Some("")]]);
    check("a\\\nb\tc", &o, &[&[Some("a\nb"), Some("c")]]);
    check("a\r\nb\r\n", &o, &[&[Some("a")], &[Some("b")]]);
    check("a\rb\r", &o, &[&[Some("a")], &[Some("b")]]);
    check("\n\\N", &o, &[&[Some("")], &[None]]);
    check("1|nil|\\nil\n", &options(&[("delimiter", "|"), ("null", "nil")]), &[&[Some("1"), None, Some("\nil")]]);
    let mixed = read(b"a\nb\rc\n", &o, 0).unwrap_err();
    assert_eq!(mixed, "literal carriage return found in data");
    assert_eq!(read(b"a\r\nb\nc\r\n", &o, 0).unwrap_err(), "literal newline found in data");
}

#[test]
fn csv() {
    let o = options(&[("format", "csv")]);
    check("1,\"a,\"\"b\"\"\",\n", &o, &[&[Some("1"), Some("a,\"b\""), None]]);
    check("\"x\ny\",\"\"\r\nz,q", &o, &[&[Some("x\ny"), Some("")], &[Some("z"), Some("q")]]);
    check("a\"b,c\"d\n", &o, &[&[Some("ab,cd")]]);
    let o = options(&[("format", "csv"), ("quote", "'"), ("escape", "\\"), ("null", "NULL"), ("delimiter", ";")]);
    check("'a\\'b;\\\\';NULL;'NULL'\n''", &o, &[&[Some("a'b;\\"), None, Some("NULL")], &[Some("")]]);
    assert_eq!(read(b"\"a\n", &options(&[("format", "csv")]), 0).unwrap_err(), "unterminated CSV quoted field");
}

#[test]
fn options_are_refused_as_postgres_does() {
    let fail = |list: &[(&str, &str)], from| {
        let list: Vec<_> = list.iter().map(|(n, v)| ((*n).to_owned(), DefValue::String((*v).to_owned()))).collect();
        let e = CopyOptions::new(&list, from).unwrap_err();
        format!("{} {}", e.state(), e.message())
    };
    assert_eq!(fail(&[("format", "xml")], true), "22023 COPY format \"xml\" not recognized");
    assert_eq!(fail(&[("delimiter", "ab")], true), "0A000 COPY delimiter must be a single one-byte character");
    assert_eq!(fail(&[("delimiter", "a")], true), "22023 COPY delimiter cannot be \"a\"");
    assert_eq!(fail(&[("quote", "'")], true), "0A000 COPY quote available only in CSV mode");
    assert_eq!(fail(&[("header", "match")], false), "0A000 cannot use \"match\" with HEADER in COPY TO");
    assert_eq!(fail(&[("nope", "1")], true), "42601 option \"nope\" not recognized");
    assert_eq!(fail(&[("null", "a"), ("null", "b")], true), "42601 conflicting or redundant options");
    assert_eq!(fail(&[("encoding", "latin1")], true), "0A000 COPY in encoding \"latin1\" is not supported");
}
