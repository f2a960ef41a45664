//! Patterns of names: pure functions.
//!
//! ```text
//! files: ["*.jsonl", "data/"]   as huggingface_hub's `allow_patterns`: Python's fnmatch, `*` crosses `/`
//! dataset: data/**/*.jsonl      as a shell and `datasets` have it: `*` stays in its folder, `**` is any folders
//! ```

/// Whether `name` matches `pattern` as huggingface_hub matches its `allow_patterns` and `ignore_patterns`
/// (`fnmatch.fnmatchcase`): `*` is any text, also across `/`, `?` one character, `[a-c]` and `[!a-c]` one of a set. A
/// pattern that ends with `/` means all below that folder, and `\` is `/`.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.replace('\\', "/");
    if pattern.ends_with('/') {
        pattern.push('*');
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    fnmatch(&pattern, &name)
}

/// Whether the path `name` matches `pattern` as in a shell: folder by folder, `**` for any number of them.
pub fn matches_path(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), name.split('/').collect());
    matches_folders(&pattern, &name)
}

/// Whether `text` is a pattern and no plain name.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// `(folder without wildcards, pattern below it)` of `data/x/*.jsonl`: `data/x`, `*.jsonl`.
pub fn split_pattern(pattern: &str) -> (&str, &str) {
    let first = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    match pattern[..first].rfind('/') {
        Some(slash) => (&pattern[..slash], &pattern[slash + 1..]),
        None => ("", pattern),
    }
}

fn matches_folders(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        // What is below a folder is not the folder.
        (Some((&"**", [])), _) => !name.is_empty(),
        (Some((&"**", rest)), _) => {
            matches_folders(rest, name) || name.split_first().is_some_and(|(_, below)| matches_folders(pattern, below))
        }
        (Some((part, rest)), Some((folder, below))) => {
            let (part, folder): (Vec<char>, Vec<char>) = (part.chars().collect(), folder.chars().collect());
            fnmatch(&part, &folder) && matches_folders(rest, below)
        }
        _ => false,
    }
}

fn fnmatch(pattern: &[char], name: &[char]) -> bool {
    // `star`: where in the pattern the last `*` stands, and how much of the name it has taken.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(_) => one_character(&pattern[p..], name[n]),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((star_p, taken))) => {
                star = Some((star_p, taken + 1));
                (p, n) = (star_p + 1, taken + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of `pattern`, which is not empty, stands for `character`; `None` where it does not match.
fn one_character(pattern: &[char], character: char) -> Option<usize> {
    match pattern[0] {
        '?' => Some(1),
        '[' => {
            let is_not = pattern.get(1) == Some(&'!');
            let begin = if is_not { 2 } else { 1 };
            // A `]` that comes first is one of the set.
            let close = (begin + 1..pattern.len()).find(|idx| pattern[*idx] == ']');
            let Some(close) = close else { return (character == '[').then_some(1) };
            (is_in_set(&pattern[begin..close], character) != is_not).then_some(close + 1)
        }
        other => (other == character).then_some(1),
    }
}

fn is_in_set(set: &[char], character: char) -> bool {
    let mut idx = 0;
    while idx < set.len() {
        let is_range = set.get(idx + 1) == Some(&'-') && idx + 2 < set.len();
        let last = if is_range { set[idx + 2] } else { set[idx] };
        if (set[idx]..=last).contains(&character) {
            return true;
        }
        idx += if is_range { 3 } else { 1 };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        // Each line was tried with Python's `fnmatch.fnmatchcase`.
        for (pattern, name, expected) in [
            ("*", "a/b", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*.b*b", "x.bab", true),
            ("", "a", false),
            ("data/*.json", "data/sub/file.json", true),
            ("?.json", "a.json", true),
            ("?.json", "ab.json", false),
            ("[ab].json", "b.json", true),
            ("[!ab].json", "b.json", false),
            ("[!ab].json", "c.json", true),
            ("model-0000[1-3]-of-*", "model-00002-of-00009", true),
            ("model-0000[1-3]-of-*", "model-00004-of-00009", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("[a-]x", "-x", true),
            ("A*", "abc", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_folder_means_all_below_it() {
        assert!(matches_pattern("data/", "data/a/b.json"));
        assert!(matches_pattern("data\\*.json", "data/b.json"));
        assert!(!matches_pattern("data/", "other/data"));
    }

    #[test]
    fn in_a_path_stars_stay_in_their_folder() {
        for (pattern, name, expected) in [
            ("*.jsonl", "a.jsonl", true),
            ("*.jsonl", "sub/a.jsonl", false),
            ("**/*.jsonl", "a.jsonl", true),
            ("**/*.jsonl", "x/y/a.jsonl", true),
            ("x/**", "x/y/a.jsonl", true),
            ("x/**", "x", false),
            ("x/**/**", "x", false),
            ("**", "x", true),
            ("x/[ab]?/*.json", "x/a1/t.json", true),
        ] {
            assert_eq!(matches_path(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(split_pattern("data/x/*.jsonl"), ("data/x", "*.jsonl"));
        assert_eq!(split_pattern("*.jsonl"), ("", "*.jsonl"));
        assert_eq!(split_pattern("/a*/b"), ("", "a*/b"));
    }
}
