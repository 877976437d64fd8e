"""What the package keeps in nnU-Net's plans, which travel with every model."""

# The plans.json of a model folder is part of what nnUNetv2_export_model_to_zip packs.
SETTINGS_KEY = "conflunet"
