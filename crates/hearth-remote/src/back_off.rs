//! When to leave a server alone, and for how long. What is known of it is stored; here are the rules.

use hearth_matrix::ruma::ServerName;
use hearth_store::Destination;

const FIRST_WAIT: i64 = 10_000;
const MAX_WAIT: i64 = 3_600_000;
/// A success is written down again no sooner than this.
const NOTE_SUCCESS_EVERY: i64 = 3_600_000;
const MOST_ERROR_BYTES: usize = 500;

/// Until when nothing is sent to a server, if that is later than now.
pub(crate) fn backing_off_until(destination: &Destination, now: i64) -> Option<i64> {
    (destination.retry_ts > now).then_some(destination.retry_ts)
}

/// After a request that was begun at a time and failed. Nothing changes if another one failed meanwhile: many requests at
/// once that fail are one failure.
pub(crate) fn after_failure(
    server: &ServerName,
    before: &Destination,
    begun: i64,
    now: i64,
    error: &str,
) -> Option<Destination> {
    if before.failures > 0 && before.retry_ts > begun {
        return None;
    }
    let failures = before.failures.saturating_add(1);
    let mut end = error.len().min(MOST_ERROR_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    Some(Destination {
        failures,
        failing_since_ts: before.failing_since_ts.or(Some(now)),
        retry_ts: now + wait(server, failures),
        last_success_ts: before.last_success_ts,
        last_error: Some(error[..end].to_owned()),
    })
}

/// After an answer, or another sign of life; nothing if it is not worth writing down.
pub(crate) fn after_success(before: Option<&Destination>, now: i64) -> Option<Destination> {
    let worth = before.is_none_or(|before| {
        before.failures > 0 || before.last_success_ts.is_none_or(|last| last + NOTE_SUCCESS_EVERY <= now)
    });
    worth.then(|| Destination { last_success_ts: Some(now), ..Destination::default() })
}

/// After a sign of life from a server that failed: it is tried again at once. Only an answer ends its row of failures.
pub(crate) fn after_life(before: &Destination, now: i64) -> Option<Destination> {
    (before.failures > 0 && before.retry_ts > now).then(|| Destination { retry_ts: now, ..before.clone() })
}

/// Twice as long after each failure, up to about an hour. Servers that failed together don't come back together.
fn wait(server: &ServerName, failures: i64) -> i64 {
    let wait = (FIRST_WAIT << (failures - 1).clamp(0, 20)).min(MAX_WAIT);
    let mut spread = 5381_u32;
    for byte in server.as_bytes() {
        spread = spread.wrapping_mul(33) ^ u32::from(*byte);
    }
    wait - wait * i64::from(spread % 20) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_wait_longer_and_longer_up_to_an_hour() {
        let server = <&ServerName>::try_from("a.org").unwrap();
        let (mut state, mut now) = (Destination::default(), 1_000_000);
        let mut last = 0;
        for failures in 1..30 {
            state = after_failure(server, &state, now, now, "no answer").unwrap();
            let wait = state.retry_ts - now;
            assert_eq!((state.failures, state.failing_since_ts), (failures, Some(1_000_000)));
            assert!(wait >= last && (8_000..=MAX_WAIT).contains(&wait), "{wait}");
            assert_eq!(backing_off_until(&state, now), Some(state.retry_ts));
            (last, now) = (wait, state.retry_ts);
            assert_eq!(backing_off_until(&state, now), None);
        }
        assert!(last >= MAX_WAIT * 8 / 10);
    }

    #[test]
    fn many_failures_at_once_are_one() {
        let server = <&ServerName>::try_from("a.org").unwrap();
        let state = after_failure(server, &Destination::default(), 5, 100, "x").unwrap();
        assert_eq!(after_failure(server, &state, 5, 101, "x"), None);
        assert_eq!(after_failure(server, &state, 99, 101, "x"), None);
        assert!(after_failure(server, &state, state.retry_ts, state.retry_ts, "x").is_some());
    }

    #[test]
    fn an_answer_ends_it_and_is_written_down_now_and_then() {
        let failing = Destination { failures: 3, retry_ts: 500, ..Destination::default() };
        let fine = after_success(Some(&failing), 100).unwrap();
        assert_eq!((fine.failures, fine.retry_ts, fine.last_success_ts), (0, 0, Some(100)));
        assert_eq!(after_success(Some(&fine), 200), None);
        assert!(after_success(Some(&fine), 100 + NOTE_SUCCESS_EVERY).is_some());
        assert!(after_success(None, 1).is_some());
    }

    #[test]
    fn a_sign_of_life_ends_the_wait_and_not_the_row() {
        let server = <&ServerName>::try_from("a.org").unwrap();
        let one = after_failure(server, &Destination::default(), 0, 0, "no answer").unwrap();
        let two = after_failure(server, &one, one.retry_ts, one.retry_ts, "no answer").unwrap();
        let now = one.retry_ts + 1;
        let alive = after_life(&two, now).unwrap();
        assert_eq!(backing_off_until(&alive, now), None);
        assert_eq!(Destination { retry_ts: two.retry_ts, ..alive.clone() }, two);
        assert_eq!(after_failure(server, &alive, now, now, "no answer").unwrap().failures, 3);
        assert_eq!((after_life(&alive, now), after_life(&Destination::default(), 0)), (None, None));
    }

    #[test]
    fn a_long_error_is_cut_where_a_letter_ends() {
        let server = <&ServerName>::try_from("a.org").unwrap();
        let state = after_failure(server, &Destination::default(), 0, 0, &"é".repeat(1000)).unwrap();
        assert!(state.last_error.unwrap().len() <= MOST_ERROR_BYTES);
    }
}
