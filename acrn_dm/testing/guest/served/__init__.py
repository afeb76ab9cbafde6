"""A guest of QEMU's, whose devices acrn-dm serves by vfio-user: a real driver without a machine of acrn-dm's."""
