//! Stages as written to instances: one for each combination of the variables that a stage depends on.
//!
//! ```text
//! uses of variables, `matrix:` of stages --along `inputs:` and `needs:`--> variables of each stage
//! variables, combinations --distinct ones--> instances, their references pointing at instances
//! ```
//!
//! A stage depends on the variables that it uses, on all of its own matrix, and on those of every stage it names. Of the matrix at the
//! top it has the distinct combinations of those variables, so what is before a variable's first use stays single.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::super::findings::{Findings, nearest_or_list};
use super::super::keys;
use super::super::node::{Body, Entry, Node, Scalar, Span};
use super::INSTANCES_MAX;
use super::combination::Combination;
use super::read::{Matrix, read};
use super::uses::{self, Uses};

/// A variable: the position of its matrix, and its own in that.
type Variable = (usize, usize);

/// All stages, while it is found out what each depends on.
struct Expansion<'m> {
    /// The one at the top of the file first; of stages, in file order.
    matrices: &'m [Matrix],
    names: HashMap<&'m str, usize>,
    /// By stage.
    variables: Vec<BTreeSet<Variable>>,
}

/// Expands `stages`; names are checked here, as those of instances have other characters.
pub(in super::super) fn expand(mut stages: Vec<Entry>, top: Matrix, findings: &mut Findings) -> Vec<Entry> {
    let mut matrices = vec![top];
    let mut own = vec![None; stages.len()];
    for (position, stage) in stages.iter_mut().enumerate() {
        keys::name(&stage.key, "stage", stage.key_span, findings);
        if let Some(entry) = take_matrix(&mut stage.value) {
            own[position] = Some(matrices.len());
            matrices.push(read(entry, &format!("stage `{}`", stage.key), findings));
        }
    }
    let all_uses: Vec<Uses> = stages.iter().map(|stage| uses_of(&stage.value)).collect();
    if matrices.len() == 1 && all_uses.iter().all(Uses::is_empty) {
        return stages;
    }
    let names = stages.iter().enumerate().map(|(position, stage)| (stage.key.as_str(), position)).collect();
    let variables = vec![BTreeSet::new(); stages.len()];
    let mut expansion = Expansion { matrices: &matrices, names, variables };
    expansion.begin(&all_uses, &own);
    expansion.spread(&stages);
    for (position, stage) in stages.iter().enumerate() {
        expansion.check_declared_once(position, stage, findings);
        expansion.check_uses(position, stage, &all_uses[position], findings);
    }
    expansion.instances(&stages, findings)
}

fn take_matrix(stage: &mut Node) -> Option<Entry> {
    let Body::Mapping(entries) = &mut stage.body else { return None };
    let position = entries.iter().position(|entry| entry.key == "matrix")?;
    Some(entries.remove(position))
}

fn uses_of(stage: &Node) -> Uses {
    let mut uses = Uses::new();
    uses::find(stage, &mut uses);
    uses
}

/// The texts of `inputs:` and `needs:`.
fn references(stage: &Node) -> Vec<&str> {
    let inputs = stage.get("inputs").map_or(&[][..], |entry| entry.value.entries());
    let needs = stage.get("needs").map(|entry| &entry.value);
    let needs = needs.map_or(&[][..], |node| match &node.body {
        Body::Sequence(items) => items,
        _ => std::slice::from_ref(node),
    });
    inputs.iter().map(|entry| &entry.value).chain(needs).filter_map(text).collect()
}

fn text(node: &Node) -> Option<&str> {
    if let Body::Scalar(Scalar::String(text)) = &node.body { Some(text) } else { None }
}

impl Expansion<'_> {
    /// The stage that a reference names, if it does not name one instance of it.
    fn referred(&self, reference: &str) -> Option<usize> {
        if reference.contains(['@', '$']) {
            return None;
        }
        self.names.get(reference.split('.').next()?).copied()
    }

    /// What each stage depends on by itself.
    fn begin(&mut self, all_uses: &[Uses], own: &[Option<usize>]) {
        for (stage, variables) in self.variables.iter_mut().enumerate() {
            let of_top = self.matrices[0].variables.iter().enumerate();
            variables
                .extend(of_top.filter(|(_, (name, _))| all_uses[stage].contains_key(name)).map(|(idx, _)| (0, idx)));
            if let Some(matrix) = own[stage] {
                variables.extend((0..self.matrices[matrix].variables.len()).map(|idx| (matrix, idx)));
            }
        }
    }

    /// And by the stages that it names.
    fn spread(&mut self, stages: &[Entry]) {
        let mut named_by = vec![Vec::new(); stages.len()];
        for (to, stage) in stages.iter().enumerate() {
            for from in references(&stage.value).into_iter().filter_map(|reference| self.referred(reference)) {
                named_by[from].push(to);
            }
        }
        let mut pending: Vec<usize> = (0..stages.len()).filter(|&stage| !self.variables[stage].is_empty()).collect();
        while let Some(from) = pending.pop() {
            for &to in &named_by[from] {
                let more: Vec<Variable> = self.variables[from].difference(&self.variables[to]).copied().collect();
                if !more.is_empty() {
                    self.variables[to].extend(more);
                    pending.push(to);
                }
            }
        }
    }

    fn declared(&self, (matrix, idx): Variable) -> &(String, Span) {
        &self.matrices[matrix].variables[idx]
    }

    /// A name must not stand for two variables, nor one of the top's be declared again: which of them is meant?
    fn check_declared_once(&mut self, stage: usize, entry: &Entry, findings: &mut Findings) {
        let mut known: HashMap<&str, Variable> = HashMap::new();
        let mut twice = Vec::new();
        for &variable in &self.variables[stage] {
            let name = self.declared(variable).0.as_str();
            let first = *known.entry(name).or_insert(variable);
            if first != variable {
                twice.push((first, variable));
            } else if variable.0 > 0 && self.matrices[0].declares(name) {
                let idx = self.matrices[0].variables.iter().position(|(top, _)| top == name);
                twice.push(((0, idx.expect("it declares it")), variable));
            }
        }
        for (first, second) in twice {
            let ((name, at), (_, span)) = (self.declared(first), self.declared(second));
            let message =
                format!("stage `{}` depends on two variables of a matrix that are called `{name}`", entry.key);
            let place = findings.place(*at);
            findings.error("duplicate-variable", *span, message).help =
                Some(format!("give them different names (the other is declared at {place})"));
            self.variables[stage].remove(&second);
        }
    }

    /// Every variable that a stage uses is one it can have, in all combinations.
    fn check_uses(&self, stage: usize, entry: &Entry, uses: &Uses, findings: &mut Findings) {
        let known: Vec<&str> =
            self.variables[stage].iter().map(|&variable| self.declared(variable).0.as_str()).collect();
        let mut names: Vec<&str> = self.matrices[0].variables.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(known.iter().copied().filter(|name| !self.matrices[0].declares(name)));
        for (name, places) in uses {
            let (written, span) = &places[0];
            let at = |findings: &Findings| findings.narrow(*span, written);
            if !known.contains(&name.as_str()) {
                let message = format!("stage `{}` uses `matrix.{name}`, but has no such variable", entry.key);
                let help = if names.is_empty() {
                    format!("declare it: `matrix: {{ {name}: [..] }}` at the top of the file or in the stage")
                } else {
                    nearest_or_list(name, &names, "variables here")
                };
                let span = at(findings);
                findings.error("unknown-matrix-variable", span, message).help = Some(help);
                continue;
            }
            let lacking = self.variables[stage]
                .iter()
                .filter(|&&variable| self.declared(variable).0 == *name)
                .find_map(|&(matrix, _)| self.matrices[matrix].combinations.iter().find(|one| one.get(name).is_none()));
            if let Some(combination) = lacking {
                let message = format!(
                    "stage `{}` uses `matrix.{name}`, which the combination `{}` does not have",
                    entry.key,
                    combination.shown()
                );
                let span = at(findings);
                findings.error("unknown-matrix-variable", span, message).help =
                    Some("give every combination of `include` a value for it".into());
            }
        }
    }

    /// The combinations of a stage: of each matrix the distinct ones of the variables it depends on, times each other. `None` where
    /// there are too many.
    fn combinations(&self, stage: usize) -> Option<Vec<Combination>> {
        let variables = &self.variables[stage];
        let matrices: BTreeSet<usize> = variables.iter().map(|&(matrix, _)| matrix).collect();
        let mut all = vec![Combination::default()];
        for matrix in matrices {
            let of_matrix = &self.matrices[matrix];
            let is_wanted = |name: &str| {
                let idx = of_matrix.variables.iter().position(|(other, _)| other == name);
                idx.is_some_and(|idx| variables.contains(&(matrix, idx)))
            };
            let mut seen = HashSet::new();
            let parts = of_matrix.combinations.iter().map(|combination| combination.of(is_wanted));
            let parts: Vec<Combination> = parts.filter(|part| seen.insert(part.name())).collect();
            if all.len() * parts.len() > INSTANCES_MAX {
                return None;
            }
            let joined = |before: &Combination, part: &Combination| {
                let choices = before.choices.iter().chain(&part.choices).cloned().collect();
                Combination { choices }
            };
            all = all.iter().flat_map(|before| parts.iter().map(|part| joined(before, part))).collect();
        }
        Some(all)
    }

    fn instances(&self, stages: &[Entry], findings: &mut Findings) -> Vec<Entry> {
        let mut instances = Vec::with_capacity(stages.len());
        let mut n_of_matrix = 0;
        for (position, stage) in stages.iter().enumerate() {
            if self.variables[position].is_empty() {
                let mut single = stage.clone();
                // What it uses and does not have is reported; nothing more is said about it.
                uses::substitute(&mut single.value, &Combination::default());
                instances.push(single);
                continue;
            }
            let combinations = self.combinations(position);
            n_of_matrix += combinations.as_ref().map_or(0, Vec::len);
            let Some(combinations) = combinations.filter(|_| n_of_matrix <= INSTANCES_MAX) else {
                let message =
                    format!("with stage `{}` there are more than {INSTANCES_MAX} instances of stages", stage.key);
                findings.error("matrix-too-large", stage.key_span, message).help =
                    Some("list fewer values, or let fewer stages depend on them".into());
                return Vec::new();
            };
            for combination in &combinations {
                instances.push(self.instance(stages, position, combination, findings));
            }
        }
        instances
    }

    fn instance(&self, stages: &[Entry], position: usize, combination: &Combination, findings: &mut Findings) -> Entry {
        let stage = &stages[position];
        let mut value = stage.value.clone();
        uses::substitute(&mut value, combination);
        if let Body::Mapping(entries) = &mut value.body {
            for entry in entries {
                match (entry.key.as_str(), &mut entry.value.body) {
                    ("inputs", Body::Mapping(inputs)) => {
                        inputs
                            .iter_mut()
                            .for_each(|input| self.connect(position, combination, &mut input.value, findings));
                    }
                    ("needs", Body::Sequence(needs)) => {
                        needs.iter_mut().for_each(|need| self.connect(position, combination, need, findings));
                    }
                    ("needs", _) => self.connect(position, combination, &mut entry.value, findings),
                    _ => {}
                }
            }
        }
        Entry { key: format!("{}@{}", stage.key, combination.name()), key_span: stage.key_span, value }
    }

    /// Lets a reference to a stage name its instance of the same combination.
    fn connect(&self, to: usize, combination: &Combination, node: &mut Node, findings: &mut Findings) {
        let Some(reference) = text(node) else { return };
        let Some(from) = self.referred(reference).filter(|&from| !self.variables[from].is_empty()) else { return };
        let (name, output) = reference.split_at(reference.find('.').unwrap_or(reference.len()));
        // Only where a variable chose the stage: what is written out is depended on.
        if !self.variables[from].is_subset(&self.variables[to]) {
            let message = format!("`{name}` stands for several instances, and nothing says which");
            findings.error_at_value("ambiguous-stage", node, message).help =
                Some(format!("name one, such as `{}`", self.example(from, name)));
            node.body = Body::Unknown;
            return;
        }
        let is_wanted =
            |variable: &str| self.variables[from].iter().any(|&declared| self.declared(declared).0 == variable);
        node.body = Body::Scalar(Scalar::String(format!("{name}@{}{output}", combination.of(is_wanted).name())));
    }

    fn example(&self, stage: usize, name: &str) -> String {
        let combinations = self.combinations(stage).unwrap_or_default();
        format!("{name}@{}", combinations.first().map(Combination::name).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::*;

    fn node(yaml: &str) -> Node {
        let span = Span { source: 0, line: 1, column: 1, length: 1 };
        Node::from_value(span, serde_yaml::from_str(yaml).expect("the test's YAML parses"))
    }

    fn expanded(matrix: &str, stages: &str) -> (Vec<Entry>, Vec<&'static str>) {
        let mut findings = Findings::default();
        findings.add_source("p.yaml", "");
        let top = match matrix {
            "" => Matrix::default(),
            matrix => {
                let span = node("").span;
                read(Entry { key: "matrix".into(), key_span: span, value: node(matrix) }, "the test", &mut findings)
            }
        };
        let Body::Mapping(stages) = node(stages).body else { panic!("the test's stages are a mapping") };
        let instances = expand(stages, top, &mut findings);
        (instances, findings.into_diagnostics().iter().map(|diagnostic| diagnostic.slug).collect())
    }

    /// Each instance with what it takes: `b@lr=1 < a@lr=1`.
    fn instances(matrix: &str, stages: &str) -> Vec<String> {
        let (instances, slugs) = expanded(matrix, stages);
        assert_eq!(slugs, [] as [&str; 0], "{stages}");
        let shown = |stage: &Entry| match references(&stage.value).join(" ") {
            none if none.is_empty() => stage.key.clone(),
            some => format!("{} < {some}", stage.key),
        };
        instances.iter().map(shown).collect()
    }

    fn slugs(matrix: &str, stages: &str) -> Vec<&'static str> {
        expanded(matrix, stages).1
    }

    #[test]
    fn what_is_before_the_first_use_stays_single() {
        let stages = "{ rows: {}, text: { inputs: { x: rows } }, adapter: { with: { lr: '${{ matrix.lr }}' }, inputs: { x: text } },
            released: { inputs: { x: adapter.adapter }, needs: rows }, other: { needs: [released, text] } }";
        assert_eq!(
            instances("{ lr: [1, 2] }", stages),
            [
                "rows",
                "text < rows",
                "adapter@lr=1 < text",
                "adapter@lr=2 < text",
                "released@lr=1 < adapter@lr=1.adapter rows",
                "released@lr=2 < adapter@lr=2.adapter rows",
                "other@lr=1 < released@lr=1 text",
                "other@lr=2 < released@lr=2 text",
            ]
        );
    }

    #[test]
    fn a_diamond_has_the_combinations_of_both_sides() {
        let stages =
            "{ a: { with: '${{ matrix.x }}' }, b: { with: '${{ matrix.y }}' }, c: { inputs: { a: a, b: b } } }";
        assert_eq!(
            instances("{ x: [1, 2], y: [3, 4], exclude: [{ x: 2, y: 4 }] }", stages),
            [
                "a@x=1",
                "a@x=2",
                "b@y=3",
                "b@y=4",
                "c@x=1,y=3 < a@x=1 b@y=3",
                "c@x=1,y=4 < a@x=1 b@y=4",
                "c@x=2,y=3 < a@x=2 b@y=3",
            ]
        );
    }

    #[test]
    fn a_stage_of_its_own_matrix_expands_what_follows_and_nothing_else() {
        let stages = "{ a: { matrix: { n: [1, 2] } }, b: { with: 'n-${{ matrix.n }}', inputs: { a: a } }, c: {} }";
        assert_eq!(instances("", stages), ["a@n=1", "a@n=2", "b@n=1 < a@n=1", "b@n=2 < a@n=2", "c"]);
        let both = "{ a: { matrix: { n: [1, 2] } }, b: { with: '${{ matrix.x }}', inputs: { a: a } } }";
        assert_eq!(
            instances("{ x: [7, 8] }", both)[2..],
            ["b@x=7,n=1 < a@n=1", "b@x=7,n=2 < a@n=2", "b@x=8,n=1 < a@n=1", "b@x=8,n=2 < a@n=2"]
        );
    }

    #[test]
    fn one_instance_can_be_named_and_chosen() {
        let a = "a: { with: '${{ matrix.x }}' }";
        let one = format!("{{ {a}, b: {{ inputs: {{ a: 'a@x=0.5.rows' }} }} }}");
        assert_eq!(instances("{ x: [0.5, 1] }", &one)[2..], ["b < a@x=0.5.rows"]);
        let fixed = format!("{{ {a}, b: {{ with: '${{{{ matrix.y }}}}', needs: ['a@x=${{{{ matrix.y }}}}'] }} }}");
        assert_eq!(instances("{ x: [1, 2], y: [1] }", &fixed)[2..], ["b@y=1 < a@x=1"]);
        let chosen = format!("{{ {a}, c: {{}}, b: {{ needs: '${{{{ matrix.from }}}}' }} }}");
        assert_eq!(instances("{ x: [1], from: [c] }", &chosen)[1..], ["c", "b@from=c < c"]);
        assert_eq!(slugs("{ x: [1], from: [a] }", &chosen), ["ambiguous-stage"]);
    }

    #[test]
    fn paths_of_ports_are_left_to_the_stage() {
        let stages = "{ a: { with: ['${{ inputs.x }}', 'n${{ matrix.n }}=${{ outputs.y }}'] } }";
        let (instances, _) = expanded("{ n: [1] }", stages);
        let with = instances[0].value.get("with").expect("it has it").value.to_value();
        assert_eq!(with, node("['${{ inputs.x }}', 'n1=${{ outputs.y }}']").to_value());
    }

    #[test]
    fn values_keep_their_type_where_they_are_all_there_is() {
        let stages = "{ a: { with: { n: '${{ matrix.n }}', text: 'n is ${{matrix.n}}' } } }";
        let (instances, _) = expanded("{ n: [1, 0.5, true, x] }", stages);
        let with = |stage: &Entry| stage.value.get("with").expect("it has it").value.to_value();
        let expected = [
            "{ n: 1, text: n is 1 }",
            "{ n: 0.5, text: n is 0.5 }",
            "{ n: true, text: n is true }",
            "{ n: x, text: n is x }",
        ];
        let expected: Vec<Value> = expected.map(|yaml| serde_yaml::from_str(yaml).expect("it parses")).to_vec();
        assert_eq!(instances.iter().map(with).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn stages_that_wait_for_each_other_are_left_to_who_reports_it() {
        let stages = "{ a: { with: '${{ matrix.x }}', needs: b }, b: { needs: a } }";
        assert_eq!(instances("{ x: [1] }", stages), ["a@x=1 < b@x=1", "b@x=1 < a@x=1"]);
    }

    #[test]
    fn what_is_wrong_is_said_once() {
        let uses = |name: &str| format!("{{ a: {{ with: '${{{{ matrix.{name} }}}}' }} }}");
        for (matrix, stages, expected) in [
            ("{ lr: [1, 2] }", uses("rl"), "unknown-matrix-variable"),
            ("", uses("lr"), "unknown-matrix-variable"),
            ("{ lr: [1, 2] }", uses("lr.x"), "unknown-matrix-variable"),
            ("{ lr: [1], include: [{ n: 1, lr: 2 }] }", uses("n"), "unknown-matrix-variable"),
            ("{ lr: [1] }", "{ a: { matrix: { lr: [2] } } }".into(), "duplicate-variable"),
            ("", "{ a: { matrix: { n: [1] } }, b: { matrix: { n: [1] }, needs: a } }".into(), "duplicate-variable"),
            ("", "{ a: { matrix: { n: [1] } }, b: { with: '${{ matrix.n }}' } }".into(), "unknown-matrix-variable"),
            ("", "{ a@x: {} }".into(), "bad-name"),
        ] {
            assert_eq!(slugs(matrix, &stages), [expected], "{matrix} {stages}");
        }
        let list = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let wide =
            format!("{{ a: {{ matrix: {{ x: [{0}] }} }}, b: {{ matrix: {{ y: [{0}] }}, needs: a }} }}", list(65));
        assert_eq!(slugs("", &wide), ["matrix-too-large"]);
    }
}
