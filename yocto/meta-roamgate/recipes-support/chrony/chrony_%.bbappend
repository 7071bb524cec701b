FILESEXTRAPATHS:prepend:roamgate-os := "${THISDIR}/chrony:"
