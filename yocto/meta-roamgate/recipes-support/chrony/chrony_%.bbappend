FILESEXTRAPATHS:prepend:roamgate := "${THISDIR}/chrony:"
