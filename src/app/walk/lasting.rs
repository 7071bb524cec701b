//! Counters past 16 bits, and devices that forget.

use super::*;

#[tokio::test(start_paused = true)]
async fn both_counters_go_past_16_bits_at_home_and_away() {
    let (_street, mut home, mut away, mut device) = street(ROAMING, true).await;
    join(&mut home, &mut device).await;
    home.hears(&device.up(false, false, &[], b"young")).await;
    {
        let mut sessions = home.memory.sessions.lock().unwrap();
        let session = sessions.last_mut().unwrap();
        (session.fcnt_up, session.fcnt_down) = (Some(65_529), 65_533);
    }
    device.fcnt_up = 65_530;
    for n in 0..13 {
        let hotspot = if n % 2 == 0 { &mut home } else { &mut away };
        hotspot.hears(&device.up(true, false, &[], b"old")).await;
        let (tx, _) = hotspot.transmitted().unwrap_or_else(|| panic!("uplink {} is answered", 65_530 + n));
        let down = 65_533 + n;
        let (fcnt, acked, _) = device.hears_after(&tx.phy, down >> 16);
        assert_eq!((fcnt, acked), (down, true));
        tokio::time::sleep(Duration::from_secs(3)).await;
        if n == 6 {
            // a payload is encrypted for all 32 bits of its counter
            home.queue(b"open", false);
            home.hears(&device.up(false, false, &[], b"old")).await;
            let (tx, _) = home.transmitted().expect("a downlink");
            let heard = device.hears_after(&tx.phy, 1);
            assert_eq!(heard, (65_540, false, Some((9, b"open".to_vec()))));
            home.memory.sessions.lock().unwrap().last_mut().unwrap().fcnt_down = down + 1;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
    let last = home.memory.sessions.lock().unwrap().last().unwrap().fcnt_up;
    assert_eq!(last, Some(65_543));
    // an old frame of the first round is no frame of the second
    device.fcnt_up = 65_530;
    let replayed = device.up(true, false, &[], b"old");
    home.hears(&replayed).await;
    assert!(home.transmitted().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_device_goes_on_under_its_old_session_until_it_hears_the_accept() {
    for at_home in [true, false] {
        let (_street, mut home, mut away, mut device) = street(ROAMING, true).await;
        let hotspot = if at_home { &mut home } else { &mut away };
        join(hotspot, &mut device).await;
        let answered = |tx: Option<(Tx, Instant)>| tx.map(|(tx, _)| tx.phy).expect("an answer");
        hotspot.hears(&device.up(true, false, &[], b"one")).await;
        device.hears(&answered(hotspot.transmitted()));
        tokio::time::sleep(Duration::from_secs(3)).await;
        // twice it asks, and the air swallows the first answer
        hotspot.hears(&device.join_request()).await;
        answered(hotspot.transmitted());
        tokio::time::sleep(Duration::from_secs(10)).await;
        hotspot.hears(&device.up(true, false, &[], b"two")).await;
        assert!(device.hears(&answered(hotspot.transmitted())).1, "the old session stands");
        tokio::time::sleep(Duration::from_secs(3)).await;
        hotspot.hears(&device.join_request()).await;
        let accept = answered(hotspot.transmitted());
        tokio::time::sleep(Duration::from_secs(10)).await;
        hotspot.hears(&device.up(true, false, &[], b"three")).await;
        assert!(device.hears(&answered(hotspot.transmitted())).1, "and while the accept is on its way");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let five = device.up(true, false, &[], b"five");
        device.joined(&accept);
        hotspot.hears(&device.up(true, false, &[], b"four")).await;
        assert!(device.hears(&answered(hotspot.transmitted())).1);
        tokio::time::sleep(Duration::from_secs(3)).await;
        hotspot.hears(&five).await;
        assert!(hotspot.transmitted().is_none(), "now it has ended");
        assert_eq!(home.memory.sessions.lock().unwrap().len(), 1);
    }
}
