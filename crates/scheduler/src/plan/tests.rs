use super::*;

const MIB: u64 = 1 << 20;

fn footprint(weights: u64, kv_per_position: u64) -> Footprint {
    let kv_bytes_per_position = kv_per_position;
    Footprint { weights_bytes: weights * MIB, kv_bytes_per_position, scratch_bytes: 10 * MIB, fixed_bytes: 10 * MIB, program_bytes: 0 }
}

/// 1000 MiB of weights, 8192 positions of 16 KiB (128 MiB), 20 MiB besides.
fn need() -> Need {
    Need { footprint: footprint(1000, 16 << 10), extra_bytes: 0, weights_id: 1, context: 8192, least_context: 2048 }
}

fn limit(free: u64) -> Limit {
    Limit { source: "memory.max".to_owned(), limit_bytes: (free + 100) * MIB, fixed_bytes: 100 * MIB }
}

fn ledger(free: u64, entries: Vec<Entry>) -> Ledger {
    let devices = vec![DeviceMemory { device: Device::Cpu, own_bytes: None }];
    Ledger { limits: vec![limit(free)], address_space: None, devices, entries, margin_bytes: 0, allow_paging: false }
}

/// A loaded model with `hard` MiB, all resident, and `weights` MiB.
fn entry(index: usize, hard: u64, weights: u64, hold: Hold) -> Entry {
    let (hard_bytes, weights_bytes) = (hard * MIB, weights * MIB);
    Entry { index, device: Device::Cpu, hard_bytes, pending_bytes: 0, weights_bytes, weights_id: 100 + index as u64, hold }
}

fn fit(context: u32, evict: &[usize]) -> Plan {
    Plan::Fits { device: Device::Cpu, context, evict: evict.to_vec() }
}

#[test]
fn it_fits_to_the_byte_and_not_one_less() {
    assert_eq!(plan(&need(), &ledger(1148, vec![])), fit(8192, &[]));
    let mut tight = ledger(1148, vec![]);
    tight.limits[0].fixed_bytes += 1;
    assert_eq!(
        plan(&Need { least_context: 8192, ..need() }, &tight),
        Plan::DoesNotFit(
            "needs 1.1 GiB on cpu (1000 MiB of weights, 148 MiB for 8192 positions and scratch), but 1.1 GiB are free by memory.max"
                .to_owned()
        )
    );
    tight.limits.clear();
    assert_eq!(plan(&need(), &tight), fit(8192, &[]), "no known limit");
}

#[test]
fn weights_in_use_are_not_free_although_they_are_page_cache() {
    let with = |hold| plan(&need(), &ledger(2000, vec![entry(7, 0, 1000, hold)]));
    assert!(matches!(with(Hold::Held), Plan::DoesNotFit(_)));
    assert_eq!(with(Hold::Idle(1)), fit(8192, &[7]));
    assert_eq!(plan(&need(), &ledger(2000, vec![])), fit(8192, &[]));
}

#[test]
fn weights_of_one_file_count_once() {
    let twin = Entry { weights_id: 1, ..entry(7, 148, 1000, Hold::Held) };
    assert_eq!(plan(&need(), &ledger(1148, vec![twin])), fit(8192, &[]));
}

#[test]
fn reservations_that_are_not_resident_yet_are_taken() {
    let loading = Entry { pending_bytes: 300 * MIB, ..entry(7, 300, 0, Hold::Held) };
    assert!(matches!(plan(&Need { least_context: 8192, ..need() }, &ledger(1400, vec![loading])), Plan::DoesNotFit(_)));
    assert_eq!(plan(&need(), &ledger(1448, vec![loading])), fit(8192, &[]));
    let idle = Entry { hold: Hold::Idle(1), ..loading };
    assert_eq!(plan(&need(), &ledger(1148, vec![idle])), fit(8192, &[7]), "evicting gives back what was reserved, not more");
    assert!(matches!(plan(&Need { least_context: 8192, ..need() }, &ledger(1147, vec![idle])), Plan::DoesNotFit(_)));
}

#[test]
fn the_smallest_idle_set_leaves_and_among_equals_the_least_recently_used() {
    let models = |holds: [Hold; 3]| vec![entry(0, 100, 0, holds[0]), entry(1, 300, 0, holds[1]), entry(2, 300, 0, holds[2])];
    let idle = models([Hold::Idle(1), Hold::Idle(3), Hold::Idle(2)]);
    assert_eq!(plan(&need(), &ledger(848, idle.clone())), fit(8192, &[2]));
    assert_eq!(plan(&need(), &ledger(748, idle.clone())), fit(8192, &[0, 2]));
    assert_eq!(plan(&need(), &ledger(448, idle)), fit(8192, &[0, 2, 1]));
    let busy = models([Hold::Idle(1), Hold::Idle(3), Hold::Held]);
    assert_eq!(plan(&need(), &ledger(848, busy)), fit(8192, &[1]));
}

#[test]
fn context_shrinks_no_further_than_is_useful() {
    assert_eq!(plan(&need(), &ledger(1084, vec![])), fit(4096, &[]));
    assert_eq!(plan(&need(), &ledger(1052, vec![])), fit(2048, &[]));
    assert!(matches!(plan(&need(), &ledger(1051, vec![])), Plan::DoesNotFit(_)));
    assert!(matches!(plan(&Need { least_context: 5000, ..need() }, &ledger(1084, vec![])), Plan::DoesNotFit(_)));
    assert_eq!(plan(&need(), &ledger(1084, vec![entry(7, 64, 0, Hold::Idle(1))])), fit(8192, &[7]), "rather evict than shrink");
}

#[test]
fn paging_lets_weights_exceed_the_room_but_never_what_is_hard() {
    let paging = |free| Ledger { allow_paging: true, ..ledger(free, vec![]) };
    assert_eq!(plan(&need(), &paging(148)), fit(8192, &[]));
    assert_eq!(plan(&need(), &paging(84)), fit(4096, &[]));
    assert!(matches!(plan(&need(), &paging(51)), Plan::DoesNotFit(_)));
}

#[test]
fn another_device_is_used_when_the_first_is_full() {
    let both = |own: u64| Ledger {
        devices: vec![
            DeviceMemory { device: Device::Cuda(0), own_bytes: Some(own * MIB) },
            DeviceMemory { device: Device::Cpu, own_bytes: None },
        ],
        ..ledger(5000, vec![])
    };
    assert_eq!(plan(&need(), &both(1148)), Plan::Fits { device: Device::Cuda(0), context: 8192, evict: vec![] });
    assert_eq!(plan(&need(), &both(500)), fit(8192, &[]));
    let mut occupied = both(500);
    occupied.entries = vec![Entry { device: Device::Cuda(0), ..entry(7, 100, 600, Hold::Idle(1)) }];
    assert_eq!(plan(&need(), &occupied), Plan::Fits { device: Device::Cuda(0), context: 8192, evict: vec![7] });
}

#[test]
fn the_margin_stays_free_and_the_address_space_counts_weights_as_taken() {
    let Plan::DoesNotFit(reason) = plan(&need(), &Ledger { margin_bytes: 97 * MIB, ..ledger(1148, vec![]) }) else { panic!("it fits") };
    assert!(reason.ends_with("are free by memory.max beside the margin of 97 MiB"), "{reason}");
    let small = Limit { source: "RLIMIT_AS".to_owned(), limit_bytes: 1000 * MIB, fixed_bytes: 0 };
    let Plan::DoesNotFit(reason) = plan(&need(), &Ledger { address_space: Some(small), allow_paging: true, ..ledger(9000, vec![]) }) else {
        panic!("it does not fit")
    };
    assert!(reason.ends_with("1000 MiB are free by RLIMIT_AS"), "{reason}");
}

#[test]
fn a_model_that_is_leaving_is_waited_for() {
    assert_eq!(plan(&need(), &ledger(500, vec![entry(7, 800, 0, Hold::Leaving)])), Plan::Wait);
    assert!(matches!(plan(&need(), &ledger(500, vec![entry(7, 100, 0, Hold::Leaving)])), Plan::DoesNotFit(_)));
}

#[test]
fn what_was_found_to_be_needed_counts() {
    assert!(matches!(plan(&Need { extra_bytes: 97 * MIB, ..need() }, &ledger(1148, vec![])), Plan::DoesNotFit(_)));
}
