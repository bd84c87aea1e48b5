//! What each program costs the kernel to take in: instructions that its verifier walks through, machine code, stack; and the
//! budget for them. A program near the kernel's limits is refused by the next older verifier, which walks through more.

use aya::programs::{Program, ProgramError, ProgramInfo};
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::bpf_insn;
use aya_obj::{Function, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use weft_dataplane::abi::global;

/// What a program may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Instructions that the verifier walks through, over all branches.
    pub verified: u32,
    /// Bytes of machine code.
    pub jitted: u32,
    /// Bytes of stack, over the deepest chain of calls.
    pub stack: u32,
}

/// The budget of every program, under every kernel that is tested: less than half of what kernels allow to be walked
/// through (1,000,000), because the next kernel may walk through twice as much, and the stack that they allow.
pub const BUDGET: Budget = Budget {
    verified: 400_000,
    jitted: 65_536,
    stack: 512,
};

/// How the programs are loaded: the name of the way, the level of their logs, and the device that encapsulates.
const WAYS: [(&str, u8, u32); 3] = [("", 1, 0), (" with logs", 5, 0), (" with a device", 1, 1)];

/// What a program costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Its name, and how it was loaded.
    pub program: String,
    /// Instructions that the verifier walked through; none where the kernel does not tell (before 5.16).
    pub verified: Option<u32>,
    /// Bytes of machine code; zero where nothing is compiled.
    pub jitted: u32,
    /// Bytes of stack.
    pub stack: u32,
}

impl Cost {
    /// What is over the budget, in words; empty if all is in it.
    pub fn excess(&self, budget: &Budget) -> Vec<String> {
        [
            ("instructions verified", self.verified.unwrap_or(0), budget.verified),
            ("bytes of machine code", self.jitted, budget.jitted),
            ("bytes of stack", self.stack, budget.stack),
        ]
        .into_iter()
        .filter(|(_, cost, most)| cost > most)
        .map(|(what, cost, most)| format!("{}: {cost} {what}, the budget is {most}", self.program))
        .collect()
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verified = self.verified.map_or("unknown".to_owned(), |count| count.to_string());
        write!(
            f,
            "{:<28} {verified:>9} {:>9} {:>6}",
            self.program, self.jitted, self.stack
        )
    }
}

/// Loads every program of an object in every way, and gives what each costs; panics with the verifier's last words on each that it
/// refuses.
pub fn costs(object: &[u8]) -> Vec<Cost> {
    let stacks = stacks(object);
    let (mut costs, mut refusals) = (Vec::new(), Vec::new());
    for (way, level, device) in WAYS {
        let mut loader = EbpfLoader::new();
        loader.override_global(LOG_LEVEL, &level, false);
        loader.override_global(global::ENCAP_DEVICE, &device, false);
        let mut ebpf: Ebpf = loader.load(object).unwrap_or_else(|error| panic!("{error}"));
        let mut programs: Vec<(&str, &mut Program)> = ebpf.programs_mut().collect();
        programs.sort_by_key(|(name, _)| *name);
        for (name, program) in programs {
            let info = match load(program) {
                Ok(info) => info,
                Err(error) => {
                    refusals.push(format!("{name}{way}: {}", last_words(&error)));
                    continue;
                }
            };
            costs.push(Cost {
                program: format!("{name}{way}"),
                verified: info.verified_instruction_count(),
                jitted: info.size_jitted(),
                stack: stacks[name],
            });
        }
    }
    let accepted: Vec<String> = costs.iter().map(Cost::to_string).collect();
    assert!(
        refusals.is_empty(),
        "the verifier refuses\n{}\nand takes\n{}",
        refusals.join("\n"),
        accepted.join("\n")
    );
    costs
}

/// What the verifier said last, which tells why.
fn last_words(error: &ProgramError) -> String {
    const LINES: usize = 12;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    format!(
        "{io_error}\n  {}",
        lines[lines.len().saturating_sub(LINES)..].join("\n  ")
    )
}

/// Name of the programs' global that holds the level of their logs; its code is in them only from trace on, which is 5.
const LOG_LEVEL: &str = "AYA_LOG_LEVEL";

fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::SchedClassifier(program) => {
            program.load()?;
            program.info()
        }
        Program::Xdp(program) => {
            program.load()?;
            program.info()
        }
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.info()
        }
        Program::CgroupSock(program) => {
            program.load()?;
            program.info()
        }
        other => panic!(
            "a program of a kind that this table does not know yet: {:?}",
            other.prog_type()
        ),
    }
}

/// The stack of each program of an object.
fn stacks(object: &[u8]) -> BTreeMap<String, u32> {
    let mut object = Object::parse(object).unwrap_or_else(|error| panic!("{error}"));
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_calls(&sections)
        .unwrap_or_else(|error| panic!("{error}"));
    object
        .programs
        .iter()
        .map(|(name, program)| (name.clone(), stack(&object.functions[&program.function_key()])))
        .collect()
}

/// Instruction classes and operations (Linux `include/uapi/linux/bpf_common.h` and `bpf.h`).
const CLASS: u8 = 0x07;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ADD64_IMMEDIATE: u8 = 0x07;
const MOV64_REGISTER: u8 = 0xbf;
const CALL: u8 = 0x85;
/// `src_reg` of a call to another function of the program.
const PSEUDO_CALL: u8 = 1;
/// The frame pointer.
const R10: u8 = 10;
/// A function's stack is counted in units of so many bytes, and one at least, even where it has none.
const FRAME: u64 = 32;

fn stack(linked: &Function) -> u32 {
    let code = &linked.instructions;
    let callee = |(index, instruction): (usize, &bpf_insn)| {
        let call = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
        call.then(|| (index as i64 + 1 + i64::from(instruction.imm)) as usize)
    };
    let starts: BTreeSet<usize> = code.iter().enumerate().filter_map(callee).chain([0]).collect();
    deepest(code, &starts, 0)
}

/// The stack of the function at `start` and of the deepest that it calls. Programs have no recursion.
fn deepest(code: &[bpf_insn], starts: &BTreeSet<usize>, start: usize) -> u32 {
    let end = starts.range(start + 1..).next().copied().unwrap_or(code.len());
    let mut copies = [false; 16];
    let (mut lowest, mut called) = (0_i64, 0);
    for (index, instruction) in code[start..end].iter().enumerate() {
        let (destination, source) = (instruction.dst_reg(), instruction.src_reg());
        let offset = i64::from(instruction.off);
        match instruction.code {
            MOV64_REGISTER => copies[usize::from(destination)] = source == R10,
            ADD64_IMMEDIATE if copies[usize::from(destination)] => {
                lowest = lowest.min(i64::from(instruction.imm));
                copies[usize::from(destination)] = false;
            }
            CALL if source == PSEUDO_CALL => {
                let target = (start + index) as i64 + 1 + i64::from(instruction.imm);
                called = called.max(deepest(code, starts, target as usize));
            }
            code if [ST, STX].contains(&(code & CLASS)) && destination == R10 => lowest = lowest.min(offset),
            code if code & CLASS == LDX && source == R10 => lowest = lowest.min(offset),
            _ => {}
        }
    }
    // As kernels before 6.8 count it; later ones count less.
    lowest.unsigned_abs().max(1).next_multiple_of(FRAME) as u32 + called
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> bpf_insn {
        let registers = destination | source << 4;
        let bytes = [&[code, registers][..], &offset.to_le_bytes(), &immediate.to_le_bytes()].concat();
        aya_obj::copy_instructions(&bytes).unwrap()[0]
    }

    #[test]
    fn the_stack_is_the_deepest_chain_of_calls() {
        let code = [
            instruction(MOV64_REGISTER, 1, R10, 0, 0),
            instruction(ADD64_IMMEDIATE, 1, 0, 0, -40),
            instruction(ADD64_IMMEDIATE, 2, 0, 0, -400),
            instruction(CALL, 0, PSEUDO_CALL, 0, 2),
            instruction(CALL, 0, 0, 0, 1),
            instruction(0x95, 0, 0, 0, 0),
            instruction(0x7b, R10, 1, -12, 0),
            instruction(0x95, 0, 0, 0, 0),
        ];
        assert_eq!(deepest(&code, &[0, 6].into(), 0), 64 + 32);
        assert_eq!(deepest(&code, &[0, 6].into(), 6), 32);
    }

    #[test]
    fn what_is_over_the_budget_is_named() {
        let cost = Cost {
            program: "overlay".to_owned(),
            verified: Some(11),
            jitted: 10,
            stack: 600,
        };
        let budget = Budget {
            verified: 10,
            jitted: 10,
            stack: 512,
        };
        assert_eq!(
            cost.excess(&budget),
            [
                "overlay: 11 instructions verified, the budget is 10",
                "overlay: 600 bytes of stack, the budget is 512"
            ]
        );
    }
}
