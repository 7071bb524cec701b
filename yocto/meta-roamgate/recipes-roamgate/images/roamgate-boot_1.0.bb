SUMMARY = "What the firmware of the board starts, as an update wants it"
DESCRIPTION = "The files of the boot partition in an archive, for the bundle"
HOMEPAGE = "https://roamgate.example"
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = ""

inherit deploy nopackages

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"

# where a board's firmware starts the kernel by itself there is nothing to be written
IMAGE_BOOT_FILES ??= "${KERNEL_IMAGETYPE}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

python do_deploy() {
    import glob, os, tarfile

    deployed = d.getVar('DEPLOY_DIR_IMAGE')
    name = os.path.join(d.getVar('DEPLOYDIR'), 'roamgate-boot-%s.tar' % d.getVar('MACHINE'))
    os.makedirs(os.path.dirname(name), exist_ok=True)

    def plain(info):
        info.uid = info.gid = 0
        info.uname = info.gname = 'root'
        info.mtime = int(d.getVar('SOURCE_DATE_EPOCH') or 0)
        return info

    # the same list, in the same words, as for the partition that wic makes: FILE;NAME or a pattern
    with tarfile.open(name, 'w') as tar:
        for entry in sorted(d.getVar('IMAGE_BOOT_FILES').split()):
            source, _, target = entry.partition(';')
            found = sorted(glob.glob(os.path.join(deployed, source)))
            if not found:
                bb.fatal('%s of IMAGE_BOOT_FILES is not among what was deployed' % source)
            for path in found:
                one = target or os.path.basename(path)
                if target and (target.endswith('/') or len(found) > 1):
                    one = os.path.join(target, os.path.basename(path))
                tar.add(os.path.realpath(path), arcname=one, recursive=False, filter=plain)
        cmdline = os.path.join(deployed, d.getVar('BOOTFILES_DIR_NAME') or 'none', 'cmdline.txt')
        if not os.path.exists(cmdline):
            # the hook of the update writes into it
            empty = os.path.join(d.getVar('WORKDIR'), 'cmdline.txt')
            open(empty, 'w').write('\n')
            tar.add(empty, arcname='cmdline.txt', filter=plain)
}
do_deploy[depends] += "virtual/kernel:do_deploy"
do_deploy[depends] += "${@'rpi-bootfiles:do_deploy' if 'rpi' in d.getVar('MACHINEOVERRIDES').split(':') else ''}"
addtask deploy before do_build after do_compile
