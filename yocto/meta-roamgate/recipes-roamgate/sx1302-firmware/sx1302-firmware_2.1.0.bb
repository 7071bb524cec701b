SUMMARY = "The vendor's images for the microcontrollers of an SX1302"
DESCRIPTION = "Semtech publishes them as text among its sources; they are installed as they are, and checked by who loads them"
HOMEPAGE = "https://github.com/Lora-net/sx1302_hal"
SECTION = "firmware"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE.TXT;md5=d2119120bd616e725f4580070bd9ee19"

SRC_URI = "git://github.com/Lora-net/sx1302_hal.git;protocol=https;branch=master"
# V2.1.0
SRCREV = "4b42025d1751e04632c0b04160e0d29dbbb222a5"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    to=${D}${nonarch_base_libdir}/firmware/sx1302
    install -d $to
    install -m 0644 ${S}/libloragw/src/agc_fw_sx1250.var $to/agc-sx1250.bin
    install -m 0644 ${S}/libloragw/src/agc_fw_sx1257.var $to/agc-sx125x.bin
    install -m 0644 ${S}/libloragw/src/cal_fw.var $to/calibration-sx125x.bin
    install -m 0644 ${S}/libloragw/src/arb_fw.var $to/arbiter.bin
    install -m 0644 ${S}/libloragw/src/sx1261_pram.var $to/sx1261-patch.bin
    install -m 0644 ${S}/LICENSE.TXT $to/LICENSE.TXT
}

FILES:${PN} += "${nonarch_base_libdir}/firmware/sx1302"
