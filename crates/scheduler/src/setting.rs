//! What a plan for one model depends on, gathered at one moment: its need, the devices, the room, and what is loaded.

use std::collections::HashMap;

use downshift_worker::{Device, DeviceChoice, DeviceMemory, Footprint, ModelInfo, ModelSpec};

use crate::config::MemoryLimit;
use crate::file_id::FileId;
use crate::plan::{Ledger, Need};
use crate::room::{Limit, Room};
use crate::run_loop::{Shared, State};

/// Positions of KV that a model has if there is room for them.
pub(crate) fn wanted_context(spec: &ModelSpec, info: &ModelInfo) -> u32 {
    spec.context.unwrap_or(info.context_train.min(ModelSpec::DEFAULT_CONTEXT))
}

/// What a plan for one model depends on, read at one moment.
pub(crate) struct Setting {
    index: usize,
    footprint: Footprint,
    weights_id: u64,
    context: u32,
    least_context: u32,
    devices: Vec<DeviceMemory>,
    resident: HashMap<u64, u64>,
    room: Room,
}

impl Setting {
    /// Plans for exactly this context.
    pub fn ask_for(&mut self, context: u32) {
        (self.context, self.least_context) = (context, context);
    }

    /// The need of the model and the ledger of what is loaded.
    pub fn ledger(&self, shared: &Shared, state: &State) -> (Need, Ledger) {
        let settings = &shared.config.settings;
        let Self { index, footprint, weights_id, context, least_context, devices, resident, room } = self;
        let missed = state.residents.missed(*index);
        let extra_bytes = state.residents.models[*index].extra_bytes.saturating_add(missed.hard_bytes);
        let footprint = Footprint { program_bytes: footprint.program_bytes.saturating_add(missed.soft_bytes), ..*footprint };
        let need = Need { footprint, extra_bytes, weights_id: *weights_id, context: *context, least_context: *least_context };
        let own_bytes = room.own_anon_bytes.saturating_sub(shared.own_bytes_at_start);
        let entries = state.residents.entries(&shared.config, resident, own_bytes);
        let mut limits = room.limits.clone();
        let of_machine = || room.limits.iter().map(|limit| limit.limit_bytes).min();
        let own_limit = match settings.memory_limit {
            MemoryLimit::Auto => None,
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Share(share) => of_machine().map(|bytes| (bytes as f64 * share) as u64),
        };
        let fixed_bytes = entries.iter().map(|entry| entry.hard_bytes - entry.pending_bytes).sum();
        limits.extend(own_limit.map(|limit_bytes| Limit { source: "memory_limit".to_owned(), limit_bytes, fixed_bytes }));
        let ledger = Ledger {
            limits,
            address_space: room.address_space.clone(),
            devices: devices.clone(),
            entries,
            margin_bytes: settings.memory_margin,
            allow_paging: settings.allow_paging,
        };
        (need, ledger)
    }
}

impl Shared {
    /// The devices the model may be placed on now, best first.
    pub fn devices(&self, index: usize, not_on: Option<Device>) -> Vec<DeviceMemory> {
        let mut devices = self.launcher.devices();
        if let DeviceChoice::Only(device) = self.config.models()[index].spec.device {
            let known = devices.into_iter().find(|memory| memory.device == device);
            devices = vec![known.unwrap_or(DeviceMemory { device, own_bytes: None })];
        }
        let now = self.clock.now();
        self.look(|state| {
            let cooled = |device| state.residents.models[index].cooled.get(&device).is_some_and(|(until, _)| *until > now);
            devices.retain(|memory| Some(memory.device) != not_on && !cooled(memory.device));
        });
        devices
    }

    /// Reads all that a plan for this model depends on, outside of the lock.
    pub fn setting(&self, index: usize, info: &ModelInfo, positions: u32, not_on: Option<Device>) -> Setting {
        let spec = &self.config.models()[index].spec;
        let loaded = self.look(|state| state.residents.workers());
        let resident = loaded.into_iter().filter_map(|(generation, worker)| Some((generation, worker.resident()?.anon_bytes))).collect();
        let context = wanted_context(spec, info);
        Setting {
            index,
            footprint: info.footprint,
            weights_id: FileId::of(spec).weights_id(spec),
            context,
            least_context: spec.min_context.max(positions).min(context),
            devices: self.devices(index, not_on),
            resident,
            room: self.probe.read(),
        }
    }
}
