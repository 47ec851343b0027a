//! Bytes, changed without knowing what they mean.

use crate::Dice;

/// What is special to one parser or another.
const ODD: [&[u8]; 22] = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"\"",
    b"\\",
    b",",
    b":",
    b"=",
    b";",
    b"{",
    b"[",
    b"<",
    b"</",
    b"<!--",
    b"&#x110000;",
    b"%00",
    b"$",
    b"!",
];

/// One of the good inputs with a few changes.
pub(crate) fn changed(dice: &mut Dice, good: &[&[u8]]) -> Vec<u8> {
    let mut bytes = if good.is_empty() { Vec::new() } else { dice.one_of(good).to_vec() };
    for _ in 0..=dice.below(4) {
        change(dice, &mut bytes, good);
    }
    bytes
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, good: &[&[u8]]) {
    let at = dice.below(bytes.len() + 1);
    let end = at + dice.below((bytes.len() - at + 1).min(64));
    match dice.below(10) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = dice.any() as u8,
        2 => drop(bytes.drain(at..end)),
        3 => bytes.truncate(at),
        4 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        5 => {
            // A long stretch of the same.
            let again = bytes[at..end].repeat(1 << dice.below(9));
            bytes.splice(at..at, again);
        }
        6 if !good.is_empty() => {
            let other = *dice.one_of(good);
            let from = dice.below(other.len() + 1);
            let to = from + dice.below(other.len() - from + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        7 if at < end => bytes[at..end].reverse(),
        _ => {
            let odd = *dice.one_of(&ODD);
            bytes.splice(at..at, odd.iter().copied());
        }
    }
}
