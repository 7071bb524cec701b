//! Turns `registers.csv` into constants: one `Field` a line, and the list of all. The table is the only place where an
//! address is written down.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=registers.csv");
    println!("cargo:rerun-if-changed=build.rs");
    let table = fs::read_to_string(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("registers.csv"))?;
    let mut constants = String::new();
    let mut all = String::from(
        "/// Every field of the chip, in the order of the table.\npub const ALL: &[(&str, Field)] = &[\n",
    );
    for (number, line) in table.lines().enumerate().skip(1) {
        let columns: Vec<&str> = line.split(',').collect();
        let [name, address, offset, signed, length, read_only, default, _touched] = columns[..] else {
            return Err(format!("registers.csv:{}: eight columns are wanted", number + 1).into());
        };
        let address = u16::from_str_radix(address.trim_start_matches("0x"), 16)?;
        let (offset, length, default): (u8, u8, i16) = (offset.parse()?, length.parse()?, default.parse()?);
        if offset + length > 8 {
            return Err(format!("registers.csv:{}: no field crosses a byte", number + 1).into());
        }
        let last = offset + length - 1;
        let access = if read_only == "1" { ", read only" } else { "" };
        writeln!(constants, "/// `{address:#06x}[{last}:{offset}]`{access}, {default} at power-on.")?;
        writeln!(
            constants,
            "pub const {name}: Field = Field {{ address: {address:#06x}, shift: {offset}, width: {length}, \
             signed: {}, read_only: {}, default: {default} }};",
            signed == "1",
            read_only == "1"
        )?;
        writeln!(all, "    (\"{name}\", {name}),")?;
    }
    all.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("registers.rs"), constants + &all)?;
    Ok(())
}
