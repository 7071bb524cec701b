# Off until the card says who may log in (roamgate-first-boot); and the same host key after each start.
SYSTEMD_AUTO_ENABLE:${PN}-sshd:roamgate-os = "disable"
OPENSSH_HOST_KEY_DIR_READONLY_CONFIG:roamgate-os = "/data/ssh"
