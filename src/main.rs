//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    roamgate::cli::main()
}
