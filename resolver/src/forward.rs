//! Which name servers to ask, in which order, and for how long.

use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use keelson_resolver_protocol::Upstream;
use tokio::time::{Instant, timeout_at};

use crate::answer::is_failure;
use crate::limits::{MAX_UPSTREAMS, PATIENCE};
use crate::shared::Shared;
use crate::upstream::{Question, Sockets};

/// Asks the name servers in order and returns the first good answer. If a server fails or can't
/// tell, the next one is asked at once. If a server is silent, the next one is asked after a share
/// of the time; the first may still answer. A single server is asked a second time, because a
/// packet may be lost. `None`: no server has answered.
pub(crate) async fn forward(
    shared: &Rc<Shared>,
    sockets: &Sockets,
    upstreams: &[Upstream],
    question: &Question,
) -> Option<Vec<u8>> {
    let lone = upstreams.len() == 1;
    let upstreams = order(upstreams);
    let share = share(upstreams.len());
    let begin = Instant::now();
    let end = begin + PATIENCE;
    let mut waiting = upstreams.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut bad = None;
    let mut next = begin;
    loop {
        if (asked.is_empty() || Instant::now() >= next)
            && let Some(upstream) = waiting.next()
        {
            next = Instant::now() + share;
            asked.push(sockets.ask(shared, upstream, question));
        }
        if asked.is_empty() {
            return bad;
        }
        let until = if waiting.len() == 0 {
            end
        } else {
            next.min(end)
        };
        match timeout_at(until, asked.next()).await {
            Ok(Some(Ok(answer))) if !is_failure(&answer) => return Some(answer),
            // A server that answered would give the same answer again.
            Ok(Some(answer)) if lone => return answer.ok(),
            Ok(Some(answer)) => {
                bad = answer.ok().or(bad);
                next = Instant::now();
            }
            Ok(None) => {}
            Err(_) if Instant::now() >= end => return bad,
            Err(_) => {}
        }
    }
}

/// The servers to ask, one after the other.
fn order(upstreams: &[Upstream]) -> Vec<&Upstream> {
    let first = upstreams.iter().take(MAX_UPSTREAMS);
    match upstreams {
        [only] => vec![only, only],
        _ => first.collect(),
    }
}

/// How long to wait for each before asking the next one as well.
fn share(number: usize) -> Duration {
    PATIENCE / u32::try_from(number.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use keelson_resolver_protocol::Origin;

    use super::*;

    #[test]
    fn at_most_three_servers_are_asked_and_a_single_one_twice() {
        let all: Vec<Upstream> = (1..=5)
            .map(|number| Upstream::new([192, 0, 2, number].into(), Origin::Container))
            .collect();
        let (three, one): (Vec<_>, _) = (all.iter().take(3).collect(), &all[0]);
        assert_eq!(order(&all), three);
        assert_eq!(order(&all[..2]), [&all[0], &all[1]]);
        assert_eq!(order(&all[..1]), [one, one]);
        assert!(order(&[]).is_empty());
        // The last server has time to answer, too.
        assert!(share(3) * 2 < PATIENCE);
        assert_eq!(share(1), PATIENCE);
    }
}
