//! Every chore of the workspace: one file per task.

mod bench;
mod build;
mod build_ebpf;
mod demo;
mod differential;
mod fuzz;
mod hitless;
mod kernels;
mod linker;
mod process;
mod setup;
mod simulate;
mod test;
mod tidy;
mod toolchain;
mod verify;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use workspace::Workspace;

/// Every chore of the weft workspace. Start with `cargo xtask demo` or `cargo xtask test`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Arguments),
    BuildEbpf(build_ebpf::Arguments),
    Build(build::Arguments),
    Demo(demo::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Simulate(simulate::Arguments),
    Differential(differential::Arguments),
    Fuzz(fuzz::Arguments),
    Hitless(hitless::Arguments),
    Tidy(tidy::Arguments),
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let workspace = Workspace::here();
    let outcome = match arguments.task {
        Task::Setup(arguments) => setup::run(&workspace, &arguments),
        Task::BuildEbpf(arguments) => build_ebpf::run(&workspace, &arguments),
        Task::Build(arguments) => build::run(&workspace, &arguments),
        Task::Demo(arguments) => demo::run(&workspace, &arguments),
        Task::Test(arguments) => test::run(&workspace, &arguments),
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
        Task::Simulate(arguments) => simulate::run(&workspace, &arguments),
        Task::Differential(arguments) => differential::run(&workspace, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Task::Hitless(arguments) => hitless::run(&workspace, &arguments),
        Task::Tidy(arguments) => tidy::run(&workspace, &arguments),
        Task::Verify(arguments) => verify::run(&workspace, &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                eprintln!("xtask: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
