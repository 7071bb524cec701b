SUMMARY = "Takes what the owner has put on the card"
DESCRIPTION = "Configuration, Wi-Fi and who may log in, from the partition that every PC can write; and a data partition as large as the card"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "file://roamgate-first-boot \
           file://roamgate-first-boot.service \
           file://autoboot.txt \
           file://READ-ME.txt \
           "
S = "${UNPACKDIR}"

inherit allarch deploy systemd

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/roamgate-first-boot ${D}${bindir}/roamgate-first-boot
    install -D -m 0644 ${S}/roamgate-first-boot.service ${D}${systemd_system_unitdir}/roamgate-first-boot.service
}

# what the start partition has on it when it is new
do_deploy() {
    install -d ${DEPLOYDIR}/start
    install -m 0644 ${S}/autoboot.txt ${S}/READ-ME.txt ${DEPLOYDIR}/start/
    : > ${DEPLOYDIR}/start/config.txt
}
addtask deploy before do_build after do_install

SYSTEMD_SERVICE:${PN} = "roamgate-first-boot.service"
RDEPENDS:${PN} = "roamgate e2fsprogs-resize2fs util-linux-sfdisk util-linux-partx util-linux-findmnt wpa-supplicant-passphrase"
