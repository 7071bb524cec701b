# Which authority signs updates: yocto/build makes one where there is none, and names its folder (ROAMGATE_UPDATE_KEYS).
FILESEXTRAPATHS:prepend:roamgate-os := "${THISDIR}/files:${ROAMGATE_UPDATE_KEYS}:"

SRC_URI:append:roamgate-os = " file://system.conf.in"

# meta-rauc's example of the same name gives way
do_install:prepend:roamgate-os() {
    sed -e 's,@MACHINE@,${MACHINE},' -e 's,@DISK@,${ROAMGATE_DISK},' ${UNPACKDIR}/system.conf.in > ${UNPACKDIR}/system.conf
}

PACKAGE_ARCH:roamgate-os = "${MACHINE_ARCH}"
