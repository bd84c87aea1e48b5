//! From a seed to a schedule.

use super::{Action, BOOTSTRAP_PLACES, KEYS, NETWORKS, Schedule, Step};
use crate::membership::Random;
use crate::simulation::{CALM, Weather};
use crate::time::Duration;

/// What a clock jumps at most over a whole schedule: tombstones live half an hour, and nothing holds after that.
const MOST_JUMPED: Duration = Duration::from_secs(5 * 60);

struct Generator {
    random: Random,
    places: usize,
    networks: usize,
    jumped: Duration,
}

/// The schedule of a seed.
pub fn generate(seed: u64) -> Schedule {
    let mut random = Random::new(seed);
    let places = BOOTSTRAP_PLACES + random.below(6);
    let networks = 1 + random.below(NETWORKS);
    let mut generator = Generator {
        random,
        places,
        networks,
        jumped: Duration::ZERO,
    };
    let mut steps: Vec<Step> = (0..places).map(|place| generator.first_start(place)).collect();
    let count = 15 + generator.random.below(50);
    steps.extend((0..count).map(|_| generator.step()));
    let encrypted = generator.random.below(2) == 0;
    Schedule {
        seed,
        places,
        encrypted,
        steps,
    }
}

impl Generator {
    fn millis(&mut self, bound: usize) -> Duration {
        Duration::from_millis(self.random.below(bound) as u64)
    }

    fn first_start(&mut self, place: usize) -> Step {
        let networks = self.some_networks();
        Step {
            after: self.millis(300),
            action: Action::Start { place, networks },
        }
    }

    fn some_networks(&mut self) -> [bool; NETWORKS] {
        std::array::from_fn(|network| network < self.networks && self.random.below(8) > 0)
    }

    fn step(&mut self) -> Step {
        let bound = match self.random.below(10) {
            0..=3 => 30,
            4..=6 => 400,
            7 | 8 => 4_000,
            _ => 20_000,
        };
        Step {
            after: self.millis(bound),
            action: self.action(),
        }
    }

    fn place(&mut self) -> usize {
        self.random.below(self.places)
    }

    fn action(&mut self) -> Action {
        let (place, network) = (self.place(), self.random.below(self.networks));
        match self.random.below(100) {
            0..=37 => self.write(network),
            38..=49 => self.delete(network),
            50..=54 => self.split(),
            55..=60 => Action::Heal,
            61..=66 => Action::Weather(self.weather()),
            67..=70 => Action::Crash(place),
            71..=73 => Action::Leave(place),
            74..=77 => Action::Restart(place),
            78..=84 => Action::Start {
                place,
                networks: self.some_networks(),
            },
            85..=87 => Action::Exit(place, network),
            88..=91 => Action::Enter(place, network),
            92..=93 => self.jump(place),
            94 => Action::Rotate,
            95..=96 => Action::Stall(place, Duration::from_millis(500 + self.random.below(4_500) as u64)),
            _ => Action::Resume(place),
        }
    }

    /// Every second time by the place whose key it is.
    fn writer(&mut self) -> (usize, usize) {
        let key = self.random.below(KEYS);
        let place = if self.random.below(2) == 0 {
            key % self.places
        } else {
            self.place()
        };
        (place, key)
    }

    fn write(&mut self, network: usize) -> Action {
        let (place, key) = self.writer();
        let bytes = match self.random.below(8) {
            0 => 1_000,
            1 => 400,
            _ => 8,
        };
        Action::Write {
            place,
            network,
            key,
            bytes,
        }
    }

    fn delete(&mut self, network: usize) -> Action {
        let (place, key) = self.writer();
        Action::Delete { place, network, key }
    }

    fn split(&mut self) -> Action {
        let one_way = self.random.below(3) == 0;
        let alone = self.place();
        let parts = 2 + usize::from(self.random.below(4) == 0);
        let lonely = self.random.below(2) == 0;
        let side = |place: usize, random: &mut Random| match lonely {
            true => usize::from(place == alone),
            false => random.below(parts),
        };
        Action::Split {
            sides: (0..self.places).map(|place| side(place, &mut self.random)).collect(),
            one_way,
        }
    }

    fn weather(&mut self) -> Weather {
        let mut percent = |most: usize| match self.random.below(2) {
            0 => 0,
            _ => self.random.below(most + 1),
        };
        let (loss, twice, straggling, damaged) = (percent(40), percent(20), percent(10), percent(10));
        let longest = [2, 30, 300][self.random.below(3)];
        Weather {
            loss_percent: loss,
            duplicated_percent: twice,
            straggling_percent: straggling,
            damaged_percent: damaged,
            latency_max: Duration::from_millis(longest),
            ..CALM
        }
    }

    fn jump(&mut self, place: usize) -> Action {
        let bound = [3_000, 40_000, 120_000][self.random.below(3)];
        let by = self.millis(bound);
        if self.jumped + by > MOST_JUMPED {
            return Action::Heal;
        }
        self.jumped += by;
        Action::Jump(place, by)
    }
}
