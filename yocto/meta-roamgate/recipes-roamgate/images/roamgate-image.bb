SUMMARY = "A hotspot that is flashed, powered and forgotten"
DESCRIPTION = "Read-only system in two slots, with a data partition that updates leave alone"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"

inherit core-image

IMAGE_FEATURES = "read-only-rootfs"
IMAGE_INSTALL = "packagegroup-core-boot \
                 roamgate \
                 sx1302-firmware \
                 roamgate-slots \
                 roamgate-first-boot \
                 roamgate-settings \
                 rauc \
                 rauc-service \
                 virtual-rauc-conf \
                 chrony \
                 chronyc \
                 zram \
                 wpa-supplicant \
                 openssh-sshd \
                 ca-certificates \
                 e2fsprogs-e2fsck \
                 e2fsprogs-resize2fs \
                 dosfstools \
                 tzdata \
                 ${CORE_IMAGE_EXTRA_INSTALL} \
                 "
# one slot holds it, and the next one
IMAGE_ROOTFS_MAXSIZE = "640000"
IMAGE_OVERHEAD_FACTOR = "1.1"

# What stands on the partition named start, for wic.
IMAGE_BOOT_FILES_label-start = "${ROAMGATE_START_FILES}"
WICVARS:append = " IMAGE_BOOT_FILES_label-start"
do_image_wic[depends] += "roamgate-first-boot:do_deploy"
