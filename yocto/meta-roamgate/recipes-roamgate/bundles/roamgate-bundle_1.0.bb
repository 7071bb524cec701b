SUMMARY = "A signed update of both partitions of a slot"
DESCRIPTION = "What RAUC installs into the slot that does not run: what the firmware starts, and the system"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "file://hook.sh"

inherit bundle

RAUC_BUNDLE_COMPATIBLE = "roamgate-${MACHINE}"
RAUC_BUNDLE_VERSION = "${DISTRO_VERSION}"
RAUC_BUNDLE_DESCRIPTION = "Roamgate ${DISTRO_VERSION} for ${MACHINE}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "boot system"
RAUC_BUNDLE_HOOKS[file] = "hook.sh"

RAUC_SLOT_system = "roamgate-image"
RAUC_SLOT_system[fstype] = "ext4"
RAUC_SLOT_boot = "roamgate-boot"
RAUC_SLOT_boot[type] = "boot"
RAUC_SLOT_boot[file] = "roamgate-boot-${MACHINE}.tar"
RAUC_SLOT_boot[hooks] = "post-install"

RAUC_KEY_FILE = "${ROAMGATE_UPDATE_KEYS}/update.key.pem"
RAUC_CERT_FILE = "${ROAMGATE_UPDATE_KEYS}/update.cert.pem"
RAUC_KEYRING_FILE = "${ROAMGATE_UPDATE_KEYS}/ca.cert.pem"
