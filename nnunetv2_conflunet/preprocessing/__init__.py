"""From ``instancesTr`` to the preprocessed grid."""
