//! Formats as a whole.

use super::*;

fn written(format: Format, bodies: bool) -> Vec<u8> {
    let mut formatter = Formatter::new(format, bodies).unwrap();
    let mut out = Vec::new();
    formatter.begin(&mut out);
    for row in samples::all() {
        formatter.row(&row, &mut out).unwrap();
    }
    formatter.end(&mut out).unwrap();
    out
}

#[test]
fn bare_lines_are_the_records() {
    let rows = samples::all();
    let text = String::from_utf8(written(Format::Jsonl, false)).unwrap();
    assert_eq!(text.lines().count(), rows.len());
    for (line, row) in text.lines().zip(&rows) {
        let mut expect = row.record.clone();
        let request = expect.request.as_mut().map(|head| &mut head.body);
        let response = expect.response.as_mut().map(|head| &mut head.body);
        for body in request.into_iter().chain(response) {
            body.bytes = bytes::Bytes::new();
        }
        assert_eq!(serde_json::from_str::<crate::model::Record>(line).unwrap(), expect);
        assert!(!line.contains("\"bodies\""));
    }
    let text = String::from_utf8(written(Format::Jsonl, true)).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["bodies"]["request"], "eyJtb2RlbCI6Im0ifQ==", "as on the wire");
    assert!(text.lines().last().unwrap().find("\"bodies\"").is_none());
}

#[test]
fn names_of_formats_are_read_back() {
    for format in Format::ALL {
        assert_eq!(format.as_str().parse::<Format>(), Ok(format));
        let out = written(format, true);
        assert_eq!(std::str::from_utf8(&out).is_ok(), format.is_text(), "{format}");
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if format.is_lines() && format != Format::Csv {
            assert!(lines.clone().all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok()));
        }
    }
    assert!("xml".parse::<Format>().is_err());
}

/// Where a directory is named, what the formats write is left there for other programs to read.
#[test]
#[ignore = "leaves files: for checks with other programs"]
fn leaves_samples() {
    #[expect(clippy::disallowed_methods, reason = "a test that is asked for by hand")]
    let directory = std::env::var("EXPORT_SAMPLES").unwrap();
    for format in Format::ALL {
        std::fs::write(format!("{directory}/sample.{format}"), written(format, true)).unwrap();
    }
}
