FILESEXTRAPATHS:prepend:roamgate-os := "${THISDIR}/chrony:"

SRC_URI:append:roamgate-os = " file://roamgate-clock.service file://roamgate-socket.conf"
SYSTEMD_SERVICE:${PN}:append:roamgate-os = " roamgate-clock.service"
FILES:${PN}:append:roamgate-os = " ${systemd_system_unitdir}"
RDEPENDS:${PN}:append:roamgate-os = " chronyc"

do_install:append:roamgate-os() {
    install -D -m 0644 ${UNPACKDIR}/roamgate-clock.service ${D}${systemd_system_unitdir}/roamgate-clock.service
    install -D -m 0644 ${UNPACKDIR}/roamgate-socket.conf ${D}${systemd_system_unitdir}/chronyd.service.d/roamgate.conf
}
