//! A `matrix:` block to its combinations.
//!
//! ```text
//! { lr: [1, 2], r: [8, 9], exclude: [{ lr: 2, r: 9 }], include: [{ lr: 1, note: low }, { lr: 3, r: 8 }] }
//! all of the lists                1,8          1,9          2,8     2,9
//! less `exclude`                  1,8          1,9          2,8
//! `include` adds to what fits     1,8,low      1,9,low      2,8
//! and what fits nowhere           1,8,low      1,9,low      2,8     3,8
//! ```
//!
//! An entry of `include` fits where it changes no value that the lists gave. The rules are those of GitHub Actions.

use super::super::expression::OPEN;
use super::super::findings::{Findings, nearest_or_list};
use super::super::keys;
use super::super::node::{Body, Entry, Node, Scalar, Span};
use super::INSTANCES_MAX;
use super::combination::{Choice, Combination};

/// A matrix as declared.
#[derive(Default)]
pub(in super::super) struct Matrix {
    /// In declared order, those that only `include` has last; with the place of the first.
    pub(super) variables: Vec<(String, Span)>,
    /// At least one, unless there is no matrix.
    pub(super) combinations: Vec<Combination>,
}

/// An entry of `include` or `exclude`.
struct Given {
    span: Span,
    choices: Vec<(Choice, Span)>,
}

/// Reads the block; `owner`: "stage `text`", "the pipeline file". What is wrong with it gives one combination of unknown values, so that
/// nothing more is said about what depends on it.
pub(in super::super) fn read(entry: Entry, owner: &str, findings: &mut Findings) -> Matrix {
    let n_before = findings.len();
    let block_span = entry.key_span;
    let Some(entries) = keys::mapping(entry.value, &format!("`matrix` in {owner}"), findings) else {
        return Matrix::default();
    };
    let mut lists: Vec<(String, Span, Vec<Choice>)> = Vec::new();
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.key.as_str() {
            "include" => include = read_given(entry, owner, findings),
            "exclude" => exclude = read_given(entry, owner, findings),
            _ => {
                keys::name(&entry.key, "variable of a matrix", entry.key_span, findings);
                let span = entry.key_span;
                let (name, choices) = read_list(entry, owner, findings);
                lists.push((name, span, choices));
            }
        }
    }
    let mut variables: Vec<(String, Span)> = lists.iter().map(|(name, span, _)| (name.clone(), *span)).collect();
    exclude.iter().for_each(|given| check_names(given, &variables, owner, findings));
    let added = include.iter().flat_map(|given| &given.choices);
    for (choice, span) in added {
        if !variables.iter().any(|(name, _)| *name == choice.variable) {
            variables.push((choice.variable.clone(), *span));
        }
    }
    let mut matrix = Matrix { variables, combinations: Vec::new() };
    if findings.len() == n_before {
        let lists: Vec<Vec<Choice>> = lists.into_iter().map(|(.., choices)| choices).collect();
        matrix.combine(&lists, &exclude, &include, (block_span, owner), findings);
    }
    if findings.len() > n_before {
        matrix.combinations = vec![unknown(&matrix.variables)];
    }
    matrix
}

impl Matrix {
    pub(super) fn declares(&self, variable: &str) -> bool {
        self.variables.iter().any(|(name, _)| name == variable)
    }

    fn combine(
        &mut self,
        lists: &[Vec<Choice>],
        exclude: &[Given],
        include: &[Given],
        (span, owner): (Span, &str),
        findings: &mut Findings,
    ) {
        let n_combinations = lists.iter().try_fold(1_usize, |n, list| n.checked_mul(list.len()));
        if n_combinations.and_then(|n| n.checked_add(include.len())).is_none_or(|n| n > INSTANCES_MAX) {
            let message = format!("`matrix` in {owner} has more than {INSTANCES_MAX} combinations");
            findings.error("matrix-too-large", span, message).help = Some("list fewer values".into());
            return;
        }
        let mut originals = product(lists);
        for given in exclude {
            let n_before = originals.len();
            originals.retain(|combination| !combination.has_all(&given.plain()));
            if originals.len() == n_before {
                let message = format!("`exclude` of {owner} matches no combination here");
                findings.error("useless-exclude", given.span, message).help =
                    Some("write the values as the lists have them, or remove it".into());
            }
        }
        self.combinations = self.included(originals, include);
        if self.combinations.is_empty() {
            let message = format!("`matrix` in {owner} has no combination");
            findings.error("empty-matrix", span, message).help =
                Some("a matrix lists values, `{ lr: [1e-4, 2e-4] }`, or combinations in `include`".into());
        }
    }

    /// An entry is added to every combination of the lists in which it changes no value of theirs; where there is none, it is a
    /// combination of its own.
    fn included(&self, originals: Vec<Combination>, include: &[Given]) -> Vec<Combination> {
        let mut combinations = originals.clone();
        let mut own = Vec::new();
        for given in include {
            let choices = given.plain();
            let fits = |original: &Combination| {
                choices.iter().all(|new| original.get(&new.variable).is_none_or(|old| old.text == new.text))
            };
            let mut is_added = false;
            for (original, combination) in originals.iter().zip(&mut combinations) {
                if fits(original) {
                    is_added = true;
                    combination.choices.retain(|old| choices.iter().all(|new| new.variable != old.variable));
                    combination.choices.extend(choices.iter().cloned());
                }
            }
            if !is_added {
                own.push(Combination { choices });
            }
        }
        combinations.extend(own);
        let place = |choice: &Choice| self.variables.iter().position(|(name, _)| *name == choice.variable);
        combinations.iter_mut().for_each(|combination| combination.choices.sort_by_key(place));
        combinations
    }
}

impl Given {
    fn plain(&self) -> Vec<Choice> {
        self.choices.iter().map(|(choice, _)| choice.clone()).collect()
    }
}

/// The first list varies slowest. Nothing of no lists.
fn product(lists: &[Vec<Choice>]) -> Vec<Combination> {
    if lists.is_empty() {
        return Vec::new();
    }
    let mut combinations = vec![Combination::default()];
    for list in lists {
        let with = |combination: &Combination, choice: &Choice| {
            let choices = combination.choices.iter().chain([choice]).cloned().collect();
            Combination { choices }
        };
        combinations = combinations.iter().flat_map(|before| list.iter().map(|choice| with(before, choice))).collect();
    }
    combinations
}

fn unknown(variables: &[(String, Span)]) -> Combination {
    let choice = |(name, span): &(String, Span)| Choice::new(name, Node::new(*span, Body::Unknown));
    Combination { choices: variables.iter().map(choice).collect() }
}

/// `NAME: [VALUE, ..]`.
fn read_list(entry: Entry, owner: &str, findings: &mut Findings) -> (String, Vec<Choice>) {
    let Entry { key: name, value, .. } = entry;
    let what = format!("`{name}` in `matrix` of {owner}");
    let span = value.span;
    let items = match value.body {
        Body::Sequence(items) => items,
        Body::Unknown => Vec::new(),
        _ => {
            keys::wrong_type(&value, &what, "a list of values", findings);
            return (name, Vec::new());
        }
    };
    if items.is_empty() {
        findings.error("empty-matrix", span, format!("{what} lists no value")).help =
            Some("list at least one, or remove it".into());
    }
    let mut choices: Vec<Choice> = Vec::new();
    for item in items {
        let Some(item) = scalar(item, &format!("a value of {what}"), findings) else { continue };
        let choice = Choice::new(&name, item);
        if choices.iter().any(|before| before.text == choice.text) {
            let message = format!("{what} lists `{}` twice", choice.text);
            findings.error_at_value("duplicate-value", &choice.value, message).help = Some("remove one".into());
        }
        choices.push(choice);
    }
    (name, choices)
}

/// `include: [{ NAME: VALUE, .. }, ..]`.
fn read_given(entry: Entry, owner: &str, findings: &mut Findings) -> Vec<Given> {
    let Entry { key, value, .. } = entry;
    let what = format!("`{key}` in `matrix` of {owner}");
    let items = match value.body {
        Body::Sequence(items) => items,
        Body::Unknown => return Vec::new(),
        _ if value.is_null() => return Vec::new(),
        _ => {
            keys::wrong_type(&value, &what, "a list of mappings", findings);
            return Vec::new();
        }
    };
    let mut given = Vec::new();
    for item in items {
        let span = item.span;
        let Some(entries) = keys::mapping(item, &format!("an entry of {what}"), findings) else { continue };
        if entries.is_empty() {
            findings.error("wrong-type", span, format!("an entry of {what} is empty")).help =
                Some(format!("an entry gives variables their values, `{key}: [{{ lr: 1e-4 }}]`"));
        }
        let mut choices = Vec::new();
        for Entry { key: name, key_span, value } in entries {
            keys::name(&name, "variable of a matrix", key_span, findings);
            let value = scalar(value, &format!("`{name}` in {what}"), findings);
            choices.extend(value.map(|value| (Choice::new(&name, value), key_span)));
        }
        given.push(Given { span, choices });
    }
    given
}

/// Text, a number or a truth; anything else is a problem.
fn scalar(node: Node, what: &str, findings: &mut Findings) -> Option<Node> {
    match &node.body {
        Body::Scalar(Scalar::String(text)) if text.contains(OPEN) => {
            findings.error_at_value("bad-expression", &node, format!("{what} cannot use a variable of a matrix"));
            None
        }
        Body::Scalar(Scalar::String(_) | Scalar::Number(_) | Scalar::Bool(_)) => Some(node),
        Body::Unknown => None,
        _ => {
            keys::wrong_type(&node, what, "text, a number, `true` or `false`", findings);
            None
        }
    }
}

/// What `exclude` names must be in a list.
fn check_names(given: &Given, variables: &[(String, Span)], owner: &str, findings: &mut Findings) {
    let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    for (choice, span) in given.choices.iter().filter(|(choice, _)| !names.contains(&choice.variable.as_str())) {
        let message = format!("`exclude` of {owner} names `{}`, which its matrix does not list", choice.variable);
        findings.error("unknown-matrix-variable", *span, message).help =
            Some(nearest_or_list(&choice.variable, &names, "variables"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The combinations of a block, or the slugs of its problems.
    fn combinations(yaml: &str) -> Result<Vec<String>, Vec<&'static str>> {
        let mut findings = Findings::default();
        findings.add_source("p.yaml", yaml);
        let span = Span { source: 0, line: 1, column: 1, length: 1 };
        let value = Node::from_value(span, serde_yaml::from_str(yaml).expect("the test's YAML parses"));
        let matrix = read(Entry { key: "matrix".into(), key_span: span, value }, "the test", &mut findings);
        if findings.is_empty() {
            Ok(matrix.combinations.iter().map(Combination::shown).collect())
        } else {
            assert_eq!(matrix.combinations.len(), 1, "one of unknown values");
            Err(findings.into_diagnostics().iter().map(|diagnostic| diagnostic.slug).collect())
        }
    }

    #[test]
    fn the_lists_are_combined_and_the_first_varies_slowest() {
        assert_eq!(
            combinations("{ a: [1, 2], b: [x, y] }").expect("right"),
            ["a=1,b=x", "a=1,b=y", "a=2,b=x", "a=2,b=y"]
        );
    }

    #[test]
    fn exclude_removes_what_has_all_its_values() {
        for (exclude, left) in [
            ("[{ a: 1 }]", vec!["a=2,b=x", "a=2,b=y"]),
            ("[{ a: 1, b: x }]", vec!["a=1,b=y", "a=2,b=x", "a=2,b=y"]),
            ("[{ a: 1, b: x }, { b: y }]", vec!["a=2,b=x"]),
        ] {
            assert_eq!(combinations(&format!("{{ a: [1, 2], b: [x, y], exclude: {exclude} }}")).expect("right"), left);
        }
    }

    /// The example of GitHub's documentation.
    #[test]
    fn include_adds_to_what_fits_or_is_a_combination_of_its_own() {
        let fruits = "{ fruit: [apple, pear], animal: [cat, dog], include: [
            { color: green },
            { color: pink, animal: cat },
            { fruit: apple, shape: circle },
            { fruit: banana },
            { fruit: banana, animal: cat } ] }";
        assert_eq!(
            combinations(fruits).expect("right"),
            [
                "fruit=apple,animal=cat,color=pink,shape=circle",
                "fruit=apple,animal=dog,color=green,shape=circle",
                "fruit=pear,animal=cat,color=pink",
                "fruit=pear,animal=dog,color=green",
                "fruit=banana",
                "fruit=banana,animal=cat",
            ]
        );
    }

    #[test]
    fn include_comes_after_exclude_and_may_be_alone() {
        for (yaml, expected) in [
            ("{ a: [1, 2], exclude: [{ a: 2 }], include: [{ a: 2, b: x }] }", vec!["a=1", "a=2,b=x"]),
            ("{ a: [1], exclude: [{ a: 1 }], include: [{ a: 3 }] }", vec!["a=3"]),
            ("{ include: [{ a: 1, b: x }, { a: 2, b: y }] }", vec!["a=1,b=x", "a=2,b=y"]),
            ("{ include: [{ a: 1 }, { b: 2 }] }", vec!["a=1", "b=2"]),
        ] {
            assert_eq!(combinations(yaml).expect("right"), expected, "{yaml}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_gives_one_unknown_combination() {
        let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        let many = format!("{{ a: [{0}], b: [{0}] }}", many.join(", "));
        for (yaml, slugs) in [
            ("{ a: [] }", vec!["empty-matrix"]),
            ("{}", vec!["empty-matrix"]),
            ("{ a: [1], exclude: [{ a: 1 }] }", vec!["empty-matrix"]),
            ("{ a: 1 }", vec!["wrong-type"]),
            ("{ a: [[1], ~, { x: 1 }] }", vec!["wrong-type"; 3]),
            ("{ a: [1, 2, 1, '2'] }", vec!["duplicate-value"; 2]),
            ("{ a: [1], exclude: [{ a: 2 }] }", vec!["useless-exclude"]),
            ("{ a: [1], exclude: [{ b: 1 }] }", vec!["unknown-matrix-variable"]),
            ("{ a: [1], include: [{}] }", vec!["wrong-type"]),
            ("{ a: [1], include: { a: 1 } }", vec!["wrong-type"]),
            ("{ 2a: [1] }", vec!["bad-name"]),
            ("{ a: [1, '${{ matrix.b }}'], b: [1] }", vec!["bad-expression"]),
            (&many, vec!["matrix-too-large"]),
        ] {
            assert_eq!(combinations(yaml), Err(slugs), "{yaml}");
        }
    }
}
