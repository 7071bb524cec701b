SUMMARY = "A LoRaWAN hotspot that roams"
DESCRIPTION = "Forwarding, home network and join server with DNSSEC discovery and mutual TLS"
HOMEPAGE = "https://roamgate.example"
SECTION = "net"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE-MIT;md5=c58281fbf4472fcaeafedcf8dfc03c09 \
                    file://LICENSE-APACHE;md5=1836efb2eb779966696f473ee8540542"

# yocto/crates makes it from Cargo.lock; yocto/build does so each time
require roamgate-crates.inc

inherit cargo externalsrc pkgconfig systemd useradd

DEPENDS += "systemd"
EXTERNALSRC = "${ROAMGATE_TREE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"

CARGO_BUILD_FLAGS += "--bin roamgate --features systemd"
# as the profile dist of Cargo.toml: a quarter less to download and to keep twice
export CARGO_PROFILE_RELEASE_LTO = "fat"
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS = "1"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/roamgate ${D}${bindir}/roamgate
    install -D -m 0644 ${S}/systemd/roamgate.service ${D}${systemd_system_unitdir}/roamgate.service
    install -D -m 0644 ${S}/systemd/roamgate-partners.socket ${D}${systemd_system_unitdir}/roamgate-partners.socket
    install -D -m 0644 ${S}/systemd/60-roamgate.rules ${D}${nonarch_libdir}/udev/rules.d/60-roamgate.rules
    install -D -m 0640 ${S}/systemd/roamgate.toml ${D}${sysconfdir}/roamgate/roamgate.toml
}

# what the owner has written outlives updates, and is what every command reads
do_install:append:roamgate-os() {
    install -D -m 0644 ${S}/systemd/roamgate.toml ${D}${datadir}/roamgate/roamgate.toml
    ln -sf /data/etc/roamgate.toml ${D}${sysconfdir}/roamgate/roamgate.toml
}

# the user and the groups of systemd/roamgate.sysusers: on a root that is read-only they are made with the image
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system roamgate-radio"
USERADD_PARAM:${PN} = "--system --home-dir ${localstatedir}/lib/roamgate --no-create-home --shell /sbin/nologin --groups roamgate-radio --user-group roamgate"

# the socket is started by roamgate-first-boot where there is a [backend]
SYSTEMD_SERVICE:${PN} = "roamgate.service"
FILES:${PN} += "${nonarch_libdir}/udev ${systemd_system_unitdir}/roamgate-partners.socket"
CONFFILES:${PN} = "${sysconfdir}/roamgate/roamgate.toml"
CONFFILES:${PN}:roamgate-os = ""
RRECOMMENDS:${PN} = "sx1302-firmware ca-certificates"
