SUMMARY = "How the system is set up for years without anybody"
DESCRIPTION = "Journal in memory, watchdog, network, mounts"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "file://journal.conf \
           file://watchdog.conf \
           file://image.conf \
           file://sshd.conf \
           file://wired.network \
           file://wireless.network \
           file://wireless.conf \
           file://data.mount \
           file://boot-start.mount \
           file://var-lib-roamgate.mount \
           "
S = "${UNPACKDIR}"

inherit systemd

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/journal.conf ${D}${nonarch_libdir}/systemd/journald.conf.d/roamgate.conf
    install -D -m 0644 ${S}/watchdog.conf ${D}${nonarch_libdir}/systemd/system.conf.d/roamgate.conf
    install -D -m 0644 ${S}/image.conf ${D}${systemd_system_unitdir}/roamgate.service.d/image.conf
    install -D -m 0644 ${S}/sshd.conf ${D}${sysconfdir}/ssh/sshd_config.d/roamgate.conf
    install -D -m 0644 ${S}/wired.network ${D}${nonarch_libdir}/systemd/network/70-wired.network
    install -D -m 0644 ${S}/wireless.network ${D}${nonarch_libdir}/systemd/network/70-wireless.network
    install -D -m 0644 ${S}/wireless.conf ${D}${systemd_system_unitdir}/wpa_supplicant@wlan0.service.d/roamgate.conf
    for unit in data.mount boot-start.mount var-lib-roamgate.mount; do
        install -D -m 0644 ${S}/$unit ${D}${systemd_system_unitdir}/$unit
        sed -i 's,@DISK@,${ROAMGATE_DISK},' ${D}${systemd_system_unitdir}/$unit
    done
    install -d ${D}/data ${D}/boot/start
    # The network's password is kept where the owner's things are. It is the network card that asks for it: a board without one waits for nothing.
    local wanted=${D}${sysconfdir}/systemd/system/sys-subsystem-net-devices-wlan0.device.wants
    install -d ${D}${sysconfdir}/wpa_supplicant $wanted
    ln -s /data/etc/wpa_supplicant.conf ${D}${sysconfdir}/wpa_supplicant/wpa_supplicant-wlan0.conf
    ln -s ${systemd_system_unitdir}/wpa_supplicant@.service $wanted/wpa_supplicant@wlan0.service
}

PACKAGE_ARCH = "${MACHINE_ARCH}"
SYSTEMD_SERVICE:${PN} = "data.mount boot-start.mount var-lib-roamgate.mount"
FILES:${PN} += "${nonarch_libdir}/systemd ${systemd_system_unitdir} /data /boot/start ${sysconfdir}"
RDEPENDS:${PN} = "roamgate wpa-supplicant"
