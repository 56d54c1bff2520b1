//! Figures without a pass or fail:
//! `cargo test --release -p hostd-containers --test speed -- --ignored --nocapture`.

mod common;

use std::time::{Duration, Instant};

use common::*;
use hostd_containers::WaitCondition;

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "prints figures"]
fn life_of_a_container() {
    if !is_root() {
        return;
    }
    Machine::new().life(async |engine, _images| {
        for present in [0, 200] {
            while engine.list(SCOPE).len() < present {
                create(&engine, shell("true")).await;
            }
            let (mut creates, mut starts, mut ends, mut removes) = (vec![], vec![], vec![], vec![]);
            for _ in 0..50 {
                let began = Instant::now();
                let id = create(&engine, command("/bin/true")).await;
                creates.push(began.elapsed());
                let ended = engine
                    .wait(SCOPE, &id, WaitCondition::NextExit)
                    .await
                    .unwrap();
                let began = Instant::now();
                engine.start(SCOPE, &id).await.unwrap();
                starts.push(began.elapsed());
                let began = Instant::now();
                within(ended).await;
                ends.push(began.elapsed());
                let began = Instant::now();
                engine.remove(SCOPE, &id, false, true).await.unwrap();
                removes.push(began.elapsed());
            }
            println!(
                "{present} present: create {:?}, start {:?}, wait {:?}, remove {:?}",
                median(&mut creates),
                median(&mut starts),
                median(&mut ends),
                median(&mut removes)
            );
        }
    });
}
