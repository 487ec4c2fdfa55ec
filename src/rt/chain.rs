//! An error in one line, for people and logs.
use std::error::Error;

/// The error with all that caused it, each once: some libraries repeat their cause in their own text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    chain_from(error.to_string(), error.source())
}

/// As [`chain`], where the first words are known better than by the error itself.
pub fn chain_from(mut text: String, mut source: Option<&(dyn Error + 'static)>) -> String {
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Failure {
        words: &'static str,
        source: Option<Box<Failure>>,
    }

    #[test]
    fn each_cause_stands_once() {
        let of = |words, source| Failure {
            words,
            source: Option::map(source, Box::new),
        };
        let error = of(
            "cannot open x",
            Some(of("cannot open x", Some(of("no such file", None)))),
        );
        assert_eq!(chain(&error), "cannot open x: no such file");
    }
}
