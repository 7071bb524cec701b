# Which authority signs updates: yocto/build makes one where there is none, and names its folder (ROAMGATE_UPDATE_KEYS).
FILESEXTRAPATHS:prepend:roamgate := "${THISDIR}/files:${ROAMGATE_UPDATE_KEYS}:"

SRC_URI:append:roamgate = " file://system.conf.in"

# meta-rauc's example of the same name gives way
do_install:prepend:roamgate() {
    sed -e 's,@MACHINE@,${MACHINE},' -e 's,@DISK@,${ROAMGATE_DISK},' ${UNPACKDIR}/system.conf.in > ${UNPACKDIR}/system.conf
}

PACKAGE_ARCH:roamgate = "${MACHINE_ARCH}"
