//! Does a model fit, with what context, on which device, and who must leave for it?
//! Pure arithmetic over a reading of the room and the ledger of what is loaded; done anew for every load, remembered nowhere.

use downshift_worker::{Device, DeviceMemory, Footprint};

use crate::room::Limit;

/// Idle models that are considered for eviction together; more would cost more time than they free.
const MAX_EVICTION_CANDIDATES: usize = 10;
/// Contexts are shrunk to multiples of this.
const CONTEXT_STEP: u32 = 256;

/// What a model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// By component.
    pub footprint: Footprint,
    /// Bytes it was found to need beyond that.
    pub extra_bytes: u64,
    /// Names its weights, so that two models of one file count them once.
    pub weights_id: u64,
    /// Positions of KV that are wanted.
    pub context: u32,
    /// Positions below which it is of no use: `min_context`, or what this request needs.
    pub least_context: u32,
}

impl Need {
    /// Bytes that stay taken while it is loaded.
    pub fn hard_bytes(&self, context: u32) -> u64 {
        self.footprint.hard_bytes(context).saturating_add(self.extra_bytes)
    }
}

/// A model that is loaded or being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which one.
    pub index: usize,
    /// Where.
    pub device: Device,
    /// Bytes reserved for it beyond its weights.
    pub hard_bytes: u64,
    /// Bytes of those that are not resident yet, and so not seen in any reading of the room.
    pub pending_bytes: u64,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// As in [`Need::weights_id`].
    pub weights_id: u64,
    /// Whether and when it may be unloaded.
    pub hold: Hold,
}

/// Whether a loaded model can make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Idle since this moment, in any unit that grows.
    Idle(u64),
    /// It leaves by itself soon.
    Leaving,
    /// Busy, loading or pinned.
    Held,
}

/// The room models share, and the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Limits of the host; the least free one counts. None means that nothing is known to limit.
    pub limits: Vec<Limit>,
    /// The limit of the address space, where there is one.
    pub address_space: Option<Limit>,
    /// The devices the model may use, best first.
    pub devices: Vec<DeviceMemory>,
    /// What is loaded.
    pub entries: Vec<Entry>,
    /// Bytes left free on every device.
    pub margin_bytes: u64,
    /// Whether weights may exceed the room and be read again from disk.
    pub allow_paging: bool,
}

/// What [`plan`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Load it there, after these have left.
    Fits {
        /// The device.
        device: Device,
        /// Positions of KV.
        context: u32,
        /// Models to unload first, least recently used first.
        evict: Vec<usize>,
    },
    /// It will fit when a model that is leaving has left.
    Wait,
    /// It does not fit; the sentence names the numbers and where they come from.
    DoesNotFit(String),
}

/// Where the model fits. For each device: as it is; else after the smallest set of idle models left; else with less context.
pub fn plan(need: &Need, ledger: &Ledger) -> Plan {
    for device in &ledger.devices {
        if let Some(found) = plan_on(need, ledger, device) {
            return found;
        }
    }
    let leaving: Vec<usize> = ledger.entries.iter().filter(|entry| entry.hold != Hold::Held).map(|entry| entry.index).collect();
    let has_leaving = ledger.entries.iter().any(|entry| entry.hold == Hold::Leaving);
    if has_leaving && ledger.devices.iter().any(|device| fits(need, need.least_context, ledger, device, &leaving).is_ok()) {
        return Plan::Wait;
    }
    let idle = candidates(ledger);
    let reasons: Vec<String> = ledger
        .devices
        .iter()
        .filter_map(|device| fits(need, need.least_context, ledger, device, &idle).err().map(|short| short.sentence(device.device)))
        .collect();
    Plan::DoesNotFit(if reasons.is_empty() { "no device is left that it may run on".to_owned() } else { reasons.join("; ") })
}

fn plan_on(need: &Need, ledger: &Ledger, device: &DeviceMemory) -> Option<Plan> {
    let idle = candidates(ledger);
    let found = |context, evict| Some(Plan::Fits { device: device.device, context, evict });
    if let Some(evict) = smallest_eviction(need, need.context, ledger, device, &idle) {
        return found(need.context, evict);
    }
    let least = need.least_context.min(need.context);
    fits(need, least, ledger, device, &idle).ok()?;
    let (mut low, mut high) = (least, need.context);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(need, middle, ledger, device, &idle).is_ok() { low = middle } else { high = middle }
    }
    let context = (low / CONTEXT_STEP * CONTEXT_STEP).max(least);
    found(context, smallest_eviction(need, context, ledger, device, &idle)?)
}

/// Idle models, least recently used first.
fn candidates(ledger: &Ledger) -> Vec<usize> {
    let mut idle: Vec<&Entry> = ledger.entries.iter().filter(|entry| matches!(entry.hold, Hold::Idle(_))).collect();
    idle.sort_by_key(|entry| entry.hold);
    idle.iter().take(MAX_EVICTION_CANDIDATES).map(|entry| entry.index).collect()
}

/// The smallest set that suffices; among those of one size, the least recently used.
fn smallest_eviction(need: &Need, context: u32, ledger: &Ledger, device: &DeviceMemory, idle: &[usize]) -> Option<Vec<usize>> {
    let mut sets: Vec<u32> = (0..1u32 << idle.len()).collect();
    sets.sort_by_key(|set| (set.count_ones(), *set));
    let members = |set: u32| -> Vec<usize> {
        let chosen = idle.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
        chosen.map(|(_, index)| *index).collect()
    };
    sets.into_iter().map(members).find(|set| fits(need, context, ledger, device, set).is_ok())
}

/// What is missing for a model to fit.
struct Short {
    need_bytes: u64,
    weights_bytes: u64,
    context: u32,
    free_bytes: u64,
    source: String,
    margin_bytes: u64,
}

impl Short {
    fn sentence(&self, device: Device) -> String {
        let Self { need_bytes, weights_bytes, context, free_bytes, source, margin_bytes } = self;
        let margin = if *margin_bytes > 0 { format!(" beside the margin of {}", size(*margin_bytes)) } else { String::new() };
        format!(
            "needs {} on {device} ({} of weights, {} for {context} positions and scratch), but {} are free by {source}{margin}",
            size(need_bytes.saturating_add(*weights_bytes)),
            size(*weights_bytes),
            size(*need_bytes),
            size(*free_bytes)
        )
    }
}

/// Whether the model fits once the models `gone` are unloaded.
fn fits(need: &Need, context: u32, ledger: &Ledger, device: &DeviceMemory, gone: &[usize]) -> Result<(), Short> {
    let hard = need.hard_bytes(context);
    let is_gone = |entry: &&Entry| gone.contains(&entry.index);
    let short = |weights_bytes, free_bytes, source: &str, margin_bytes| {
        let source = source.to_owned();
        Short { need_bytes: hard, weights_bytes, context, free_bytes, source, margin_bytes }
    };
    if let Some(own) = device.own_bytes {
        let here = || ledger.entries.iter().filter(|entry| entry.device == device.device);
        let returned: u64 = here().filter(is_gone).map(|entry| entry.hard_bytes.saturating_add(entry.weights_bytes)).sum();
        let pending: u64 = here().filter(|entry| !is_gone(entry)).map(|entry| entry.pending_bytes).sum();
        let free = own.saturating_add(returned).saturating_sub(pending).saturating_sub(ledger.margin_bytes);
        let weights = need.footprint.weights_bytes;
        return if hard.saturating_add(weights) <= free { Ok(()) } else { Err(short(weights, free, "the device", ledger.margin_bytes)) };
    }
    let on_host = || ledger.entries.iter().filter(|entry| ledger.is_on_host(entry.device));
    let returned: u64 = on_host().filter(is_gone).map(|entry| entry.hard_bytes - entry.pending_bytes.min(entry.hard_bytes)).sum();
    let pending: u64 = on_host().filter(|entry| !is_gone(entry)).map(|entry| entry.pending_bytes).sum();
    let mut counted: Vec<u64> = Vec::new();
    let mut mapped = 0u64;
    for entry in on_host().filter(|entry| !is_gone(entry)) {
        if !counted.contains(&entry.weights_id) {
            counted.push(entry.weights_id);
            mapped = mapped.saturating_add(entry.weights_bytes);
        }
    }
    // The program's pages are counted here and not with the models that are loaded: they are the same pages.
    let own_weights = if counted.contains(&need.weights_id) { 0 } else { need.footprint.weights_bytes };
    let weights = own_weights.saturating_add(need.footprint.program_bytes);
    if let Some(limit) = ledger.limits.iter().min_by_key(|limit| limit.free_bytes()) {
        let hard_room = limit.free_bytes().saturating_add(returned).saturating_sub(pending).saturating_sub(ledger.margin_bytes);
        let soft_room = hard_room.saturating_sub(mapped);
        let paging = ledger.allow_paging && hard <= hard_room;
        if !paging && hard.saturating_add(weights) > soft_room {
            return Err(short(weights, soft_room, &limit.source, ledger.margin_bytes));
        }
    }
    match &ledger.address_space {
        Some(limit) if hard.saturating_add(need.footprint.weights_bytes) > limit.free_bytes().saturating_add(returned) => {
            Err(short(need.footprint.weights_bytes, limit.free_bytes(), &limit.source, 0))
        }
        _ => Ok(()),
    }
}

impl Ledger {
    fn is_on_host(&self, device: Device) -> bool {
        let known = self.devices.iter().find(|memory| memory.device == device);
        known.map_or(matches!(device, Device::Cpu | Device::CandleCpu), |memory| memory.own_bytes.is_none())
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.0} MiB") }
}

#[cfg(test)]
mod tests;
