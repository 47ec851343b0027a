//! Fuzzing on stable Rust: good inputs, changed by chance, go into a parser until its time is over.
//!
//! A target is a test that calls [`fuzz`] or [`fuzz_json`] beside the parser; it checks what must hold of whatever comes out,
//! not only that nothing panics. In an ordinary run each takes a second or two with inputs that are always the same.
//! `HEARTH_FUZZ_SECONDS` makes it longer and begins elsewhere each time, `HEARTH_FUZZ_SEED` begins at a place of one's choice.
//! An input that fails is told with its seed; it belongs among the target's good inputs then, so that it is tried for ever.
//!
//! There is no coverage to steer by, which takes a nightly compiler: the changes know JSON instead, and what is odd in it.

mod dice;
mod json;
mod text;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

pub use dice::Dice;

/// Inputs of one target in an ordinary run, and its time.
const INPUTS: u64 = 20_000;
const TIME: Duration = Duration::from_millis(1_500);
/// No input is longer than this, and none may take this long.
const MOST_BYTES: usize = 200_000;
const MOST_TIME: Duration = Duration::from_secs(5);

/// Feeds a target with changed bytes.
pub fn fuzz(name: &str, good: &[&[u8]], target: impl FnMut(&[u8])) {
    Run::new(name).feed(|dice| text::changed(dice, good), good, target);
}

/// Feeds a target with changed JSON: most of it is still JSON, some of it is not.
pub fn fuzz_json(name: &str, good: &[&str], mut target: impl FnMut(&str)) {
    let trees: Vec<json::Node> = good.iter().map(|text| json::Node::read(text)).collect();
    let good: Vec<&[u8]> = good.iter().map(|text| text.as_bytes()).collect();
    let change = |dice: &mut Dice| {
        let text = json::changed(dice, &trees).into_bytes();
        // Broken once in a while, by the byte.
        if dice.below(12) == 0 { text::changed(dice, &[&text]) } else { text }
    };
    Run::new(name).feed(change, &good, |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            target(text);
        }
    });
}

/// One change of a JSON text, for targets that drive themselves.
pub fn changed_json(dice: &mut Dice, good: &str) -> String {
    json::changed(dice, &[json::Node::read(good)])
}

/// How long a target that drives itself goes on, and with which dice.
pub fn drive(name: &str) -> (Dice, Instant) {
    let run = Run::new(name);
    eprintln!("{name}: HEARTH_FUZZ_SEED={}", run.seed);
    (Dice::new(run.seed), Instant::now() + run.time)
}

struct Run<'a> {
    name: &'a str,
    seed: u64,
    inputs: u64,
    time: Duration,
}

impl<'a> Run<'a> {
    fn new(name: &'a str) -> Self {
        let told = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seed = told("HEARTH_FUZZ_SEED");
        match told("HEARTH_FUZZ_SECONDS") {
            Some(seconds) => {
                let seed = seed.unwrap_or_else(dice::seed_of_now);
                Self { name, seed, inputs: u64::MAX, time: Duration::from_secs(seconds) }
            }
            None => Self { name, seed: seed.unwrap_or(1), inputs: INPUTS, time: TIME },
        }
    }

    fn feed(&self, mut change: impl FnMut(&mut Dice) -> Vec<u8>, good: &[&[u8]], mut target: impl FnMut(&[u8])) {
        for input in good {
            self.try_one(0, input, &mut target);
        }
        let began = Instant::now();
        let mut done = 0;
        while done < self.inputs && began.elapsed() < self.time {
            // Each input has dice of its own: one that fails is found again at once.
            let seed = self.seed.wrapping_add(done);
            let mut input = change(&mut Dice::new(seed));
            input.truncate(MOST_BYTES);
            self.try_one(seed, &input, &mut target);
            done += 1;
        }
        eprintln!("{}: {done} inputs in {:?} from seed {}", self.name, began.elapsed(), self.seed);
    }

    fn try_one(&self, seed: u64, input: &[u8], target: &mut impl FnMut(&[u8])) {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        let took = began.elapsed();
        if outcome.is_err() || took > MOST_TIME {
            let shown = input[..input.len().min(4_000)].escape_ascii();
            eprintln!("{}: HEARTH_FUZZ_SEED={seed}, {} bytes, {took:?}: {shown}", self.name, input.len());
        }
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        assert!(took <= MOST_TIME, "{}: an input took {took:?}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn inputs_differ_and_are_the_same_for_the_same_seed() {
        let good = r#"{"type":"m.room.member","content":{"membership":"join","list":[1,2,"three"]},"depth":5}"#;
        let all = |seed: u64| (0..2_000).map(|n| changed_json(&mut Dice::new(seed + n), good)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        let some: HashSet<String> = all(1).into_iter().collect();
        assert!(some.len() > 1_200, "{}", some.len());
        let readable = some.iter().filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok()).count();
        assert!(readable * 10 > some.len() * 7, "{readable} of {}", some.len());
    }

    #[test]
    #[should_panic(expected = "found")]
    fn a_rare_value_is_found() {
        fuzz_json("rare", &[r#"{"a":{"b":1}}"#], |text| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            assert!(value["a"]["b"] != serde_json::json!(9_007_199_254_740_992_u64), "found");
        });
    }
}
