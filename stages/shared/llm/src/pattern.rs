//! Patterns that name weights: `*` stands for any characters, a module's path for all that lies below it.
//!
//! ```text
//! model.embed_tokens       model.embed_tokens.weight
//! model.layers.0           every weight of the first layer
//! *.mlp                    every weight of every MLP
//! *norm.weight             every norm
//! ```

/// Whether `pattern` is the name of a weight, or the path of a module above it.
pub fn names(pattern: &str, weight: &str) -> bool {
    let ends = weight.match_indices('.').map(|(at, _)| at).chain([weight.len()]);
    ends.into_iter().any(|end| matches(pattern.as_bytes(), &weight.as_bytes()[..end]))
}

/// Whether `pattern` stands for the whole of `text`. Goes back to the last `*` where a character differs.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn patterns_name_weights_and_modules() {
        let q = "model.layers.10.self_attn.q_proj.weight";
        for pattern in [q, "model.layers.10", "*.self_attn", "*.q_proj", "model", "*", "*q_proj.weight", "*1*0*w*"] {
            assert!(names(pattern, q), "{pattern}");
        }
        for pattern in ["model.layers.1", "layers.10", "*.mlp", "q_proj", "", "*.weights", "model.layers.10."] {
            assert!(!names(pattern, q), "{pattern}");
        }
    }
}
