#!/bin/sh
# The kernel's command line as the slot wants it that was just written: its own system, and its own name.
set -eu

case "$1:$RAUC_SLOT_CLASS" in
  slot-post-install:boot)
    line="$RAUC_SLOT_MOUNT_POINT/cmdline.txt"
    # the disk's name is the one of the partition that was written, without the number
    disk=${RAUC_SLOT_DEVICE%?}
    case $RAUC_SLOT_BOOTNAME in
      A) system=5 ;;
      B) system=6 ;;
      *) echo "no slot $RAUC_SLOT_BOOTNAME" >&2; exit 1 ;;
    esac
    words=$(tr ' ' '\n' <"$line" | grep -v -e '^root=' -e '^rauc.slot=' | tr '\n' ' ')
    echo "$words root=$disk$system rauc.slot=$RAUC_SLOT_BOOTNAME" | tr -s ' ' >"$line.half"
    mv "$line.half" "$line"
    ;;
esac
