//! What differs between two texts, by lines.

/// Lines of `was` and `is` that the other lacks, with `-` and `+`, and of the rest those beside them;
/// empty where there is no difference.
pub(crate) fn diff(was: &str, is: &str) -> Vec<String> {
    if was == is {
        return Vec::new();
    }
    let (was, is): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    // What both begin and end with is most of a long text.
    let before = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let (start, was) = was.split_at(before);
    let (_, is) = is.split_at(before);
    let after = was.iter().rev().zip(is.iter().rev()).take_while(|(a, b)| a == b).count();
    let (was, end) = was.split_at(was.len() - after);
    let (is, _) = is.split_at(is.len() - after);
    let same = |lines: &[&str]| lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>();
    let all = [same(start), script(was, is), same(end)].concat();
    let beside = |index: usize| {
        let from = index.saturating_sub(2);
        all.iter().skip(from).take(index + 3 - from).any(|line| !line.starts_with(' '))
    };
    let kept = all.iter().enumerate().filter(|(index, _)| beside(*index));
    let mut lines: Vec<String> = kept.map(|(_, line)| line.clone()).collect();
    if lines.is_empty() {
        lines.push("they differ in line ends only".to_owned());
    }
    lines
}

/// By the longest common subsequence; the texts have some hundreds of lines at most.
fn script(was: &[&str], is: &[&str]) -> Vec<String> {
    let width = is.len() + 1;
    let mut common = vec![0_usize; (was.len() + 1) * width];
    let at = |i: usize, j: usize| i * width + j;
    let get = |common: &[usize], i: usize, j: usize| common.get(at(i, j)).copied().unwrap_or(0);
    for (i, a) in was.iter().enumerate().rev() {
        for (j, b) in is.iter().enumerate().rev() {
            let best = if a == b {
                get(&common, i + 1, j + 1) + 1
            } else {
                get(&common, i + 1, j).max(get(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(at(i, j)) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        match (was.get(i), is.get(j)) {
            (Some(a), Some(b)) if a == b => {
                lines.push(format!("  {a}"));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || get(&common, i + 1, j) >= get(&common, i, j + 1) => {
                lines.push(format!("- {a}"));
                i += 1;
            }
            (_, Some(b)) => {
                lines.push(format!("+ {b}"));
                j += 1;
            }
            (_, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_differs_and_what_stands_beside_it() {
        let rows: [(&str, &str, &[&str]); 5] = [
            ("a\nb\n", "a\nb\n", &[]),
            ("a\nb\n", "a\nc\n", &["  a", "- b", "+ c"]),
            ("1\n2\n3\n4\n5\n6\n", "1\n2\n3\n4\n5\n", &["  4", "  5", "- 6"]),
            ("", "x", &["+ x"]),
            ("x\n", "x", &["they differ in line ends only"]),
        ];
        for (was, is, expect) in rows {
            assert_eq!(diff(was, is), expect, "{was:?} {is:?}");
        }
    }
}
