//! What there is to grant, what a stage wishes for, and what it gets.

/// What there is to grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// CPU threads, at least 1.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
    /// The size of each pool of the pipeline.
    pub pools: Vec<usize>,
}

/// How many threads a stage would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuWish {
    /// One.
    One,
    /// Its share of what is free.
    Share,
    /// All there are.
    All,
    /// This many, at least 1.
    Exactly(usize),
}

/// What a stage would like. More than there is counts as all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Threads.
    pub cpu: CpuWish,
    /// Memory in bytes, 0 where it does not say.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
    /// How many of which pool, by its position in [`Slots::pools`]; each pool once.
    pub pools: Vec<(usize, usize)>,
}

impl Wish {
    /// Threads alone.
    pub fn of_threads(cpu: CpuWish) -> Self {
        Wish { cpu, memory_bytes: 0, gpus: 0, pools: Vec::new() }
    }
}

/// What a stage has until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes; 0 where it asked for none.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
    /// How many of which pool.
    pub pools: Vec<(usize, usize)>,
}

impl Slots {
    /// What a stage with this wish gets while `free` is left of these slots; `None` where it does not fit. `n_ready`: how many
    /// want to start, this one counted.
    pub(super) fn grant(&self, free: &Slots, wish: &Wish, n_ready: usize) -> Option<Grant> {
        if free.threads == 0 {
            return None;
        }
        let threads = match wish.cpu {
            CpuWish::One => 1,
            CpuWish::All => self.threads,
            CpuWish::Exactly(threads) => threads.clamp(1, self.threads),
            CpuWish::Share => (free.threads / n_ready).max(1),
        };
        let memory_bytes = wish.memory_bytes.min(self.memory_bytes);
        let gpus = wish.gpus.min(self.gpus);
        let pools: Vec<(usize, usize)> = wish.pools.iter().map(|&(pool, n)| (pool, n.min(self.pools[pool]))).collect();
        let fits = threads <= free.threads
            && memory_bytes <= free.memory_bytes
            && gpus <= free.gpus
            && pools.iter().all(|&(pool, n)| n <= free.pools[pool]);
        fits.then_some(Grant { threads, memory_bytes, gpus, pools })
    }

    pub(super) fn take(&mut self, grant: &Grant) {
        self.threads -= grant.threads;
        self.memory_bytes -= grant.memory_bytes;
        self.gpus -= grant.gpus;
        grant.pools.iter().for_each(|&(pool, n)| self.pools[pool] -= n);
    }

    pub(super) fn give_back(&mut self, grant: &Grant) {
        self.threads += grant.threads;
        self.memory_bytes += grant.memory_bytes;
        self.gpus += grant.gpus;
        grant.pools.iter().for_each(|&(pool, n)| self.pools[pool] += n);
    }
}
