SUMMARY = "Which slot starts, and whether an update stays"
DESCRIPTION = "RAUC's boot loader interface for the firmware of a Raspberry Pi, and the trial of an update"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "file://roamgate-slots \
           file://roamgate-commit \
           file://roamgate-commit.service \
           file://roamgate-before \
           "
S = "${UNPACKDIR}"

inherit allarch systemd

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    for script in roamgate-slots roamgate-commit roamgate-before; do
        install -D -m 0755 ${S}/$script ${D}${bindir}/$script
    done
    install -D -m 0644 ${S}/roamgate-commit.service ${D}${systemd_system_unitdir}/roamgate-commit.service
}

SYSTEMD_SERVICE:${PN} = "roamgate-commit.service"
RDEPENDS:${PN} = "rauc"
