//! JSON as a person reads it: re-indented token by token, so that what is shown is what was sent.

/// Steps of indentation; deeper nesting stays at this depth, so that hostile JSON cannot make the
/// page quadratic in its size.
const MAX_INDENT: usize = 32;

/// Re-indents JSON without reading it: strings stay as they are, white space between tokens is
/// replaced. Works on the beginning of a document too.
#[must_use]
pub fn indent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut chars = text.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth.min(MAX_INDENT)).for_each(|_| out.push_str("  "));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.peek().is_some_and(|c| c.is_ascii_whitespace()) {
                    chars.next();
                }
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_and_not_changed() {
        let rows = [
            ("{}", "{}"),
            ("[ ]", "[]"),
            (r#"{"b":1.0e5,"a":[1,2]}"#, "{\n  \"b\": 1.0e5,\n  \"a\": [\n    1,\n    2\n  ]\n}"),
            (r#"{"k":"a,{}[]:\" \\"}"#, "{\n  \"k\": \"a,{}[]:\\\" \\\\\"\n}"),
            (r#"{"cut":"in the mid"#, "{\n  \"cut\": \"in the mid"),
            ("}}", "\n}\n}"),
        ];
        for (text, expect) in rows {
            assert_eq!(indent(text), expect, "{text:?}");
        }
        let deep = "[".repeat(50_000);
        assert!(indent(&deep).len() <= deep.len() * (2 + 2 * MAX_INDENT));
    }
}
