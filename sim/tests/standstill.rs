//! That no real time reaches a seed's run, in a program of its own: its clocks stay stopped.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aklight_sim::standstill;

#[test]
fn stopped_clocks_show_the_same_for_ever() {
    let before = (Instant::now(), SystemTime::now());
    std::thread::sleep(Duration::from_millis(2));
    assert!(before.0.elapsed() >= Duration::from_millis(2));
    assert!(before.1.elapsed().expect("goes on") >= Duration::from_millis(2));

    standstill::stop();
    let (instant, time) = (Instant::now(), SystemTime::now());
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(instant.elapsed(), Duration::ZERO);
    assert_eq!(SystemTime::now(), time);
    let since = time.duration_since(UNIX_EPOCH).expect("after 1970");
    assert_eq!(since, Duration::from_secs(standstill::BEGIN_S.into()));
    // The runtimes of the simulation begin their own time from it, and what asks outside of any has it.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    let began = runtime.block_on(async {
        let began = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(60));
        began
    });
    assert_eq!(began.into_std(), instant);
    assert_eq!(tokio::time::Instant::now(), began);
}
