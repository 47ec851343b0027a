//! The order in which the targets of SRV records are tried (RFC 2782): by priority, then by chance, heavier ones more often.

use crate::Service;

/// So many targets are tried at most.
const MOST: usize = 8;

/// Puts targets in order. `pick(n)` gives a number from 0 to `n`, inclusive, by chance.
pub(crate) fn in_order(mut services: Vec<Service>, mut pick: impl FnMut(u32) -> u32) -> Vec<Service> {
    services.sort_by(|a, b| (a.priority, a.weight, &a.target, a.port).cmp(&(b.priority, b.weight, &b.target, b.port)));
    let mut ordered = Vec::with_capacity(services.len().min(MOST));
    while let Some(first) = services.first()
        && ordered.len() < MOST
    {
        let equals = services.iter().take_while(|service| service.priority == first.priority).count();
        // Those without weight come first in the list, so that they have a small chance, as the RFC wants.
        let total: u32 = services[..equals].iter().map(|service| u32::from(service.weight)).sum();
        let drawn = pick(total).min(total);
        let mut sum = 0;
        let at = services[..equals]
            .iter()
            .position(|service| {
                sum += u32::from(service.weight);
                sum >= drawn
            })
            .unwrap_or(0);
        ordered.push(services.remove(at));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, target: target.to_owned(), port: 8448 }
    }

    fn targets(services: &[Service]) -> Vec<&str> {
        services.iter().map(|service| service.target.as_str()).collect()
    }

    #[test]
    fn a_lower_priority_comes_first_and_weights_decide_among_equals() {
        let services =
            vec![service(20, 0, "last"), service(10, 30, "heavy"), service(10, 10, "light"), service(10, 0, "none")];
        assert_eq!(targets(&in_order(services.clone(), |_| 0)), ["none", "light", "heavy", "last"]);
        assert_eq!(targets(&in_order(services.clone(), |total| total)), ["heavy", "light", "none", "last"]);
        assert_eq!(
            targets(&in_order(services, |total| if total == 40 { 11 } else { 0 })),
            ["heavy", "none", "light", "last"]
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let services = (0..100).map(|at| service(at, 0, "x")).collect();
        assert_eq!(in_order(services, |_| 0).len(), MOST);
    }
}
