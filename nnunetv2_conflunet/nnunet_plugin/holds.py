"""Everything in nnU-Net's internals that this package relies on, in one list.

``tests/nnunet_plugin/test_contract.py`` checks it against the installed nnU-Net; this module does not import nnU-Net.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
PREDICTOR = "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor"
TRANSFORMS = "batchgeneratorsv2.transforms"


@dataclass(frozen=True)
class Hold:
    """One internal of nnU-Net, or of its libraries, and what is assumed about it.

    Attributes:
        name: what it is.
        at: ``module:object``, dotted.
        carries: the feature of this plugin that breaks with it.
        used_by: the modules of this package that rely on it, without the package's name, separated by spaces.
        parameters: names of its parameters in order, separated by spaces; ``...`` at the end allows any others.
        methods: the same for its methods, by name.
        attributes: names that it has, separated by spaces.
        source: pieces of its source text, compared without whitespace.
        behavior: what it does, in a sentence that the contract test maps to a function.
    """

    name: str
    at: str
    carries: str
    used_by: str
    parameters: str | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    attributes: str = ""
    source: tuple[str, ...] = ()
    behavior: str = ""


# Each begins with its name, location, what it carries and who uses it.
# fmt: off
HOLDS = (
    Hold("search for trainers", "nnunetv2.utilities.find_objects:recursive_find_trainer_class_by_name",
         "-tr finds our trainers", "nnunet_plugin.search_path", parameters="trainer_name",
         source=("nnUNet_extTrainer.get().split(os.pathsep)", "cleanup_imports_from_base_folder=True")),
    Hold("environment of the search", "nnunetv2.paths:nnUNet_extTrainer",
         "our predictor finds our trainers without nnUNet_extTrainer", "nnunet_plugin.search_path",
         attributes="is_set get", behavior="the variable is read when it is asked for, not when nnU-Net is imported"),
    Hold("network of a trainer", f"{TRAINER}.build_network_architecture",
         "center and offset heads as additional output channels", "trainers.conflunet_trainer trainers.isbi2024",
         parameters="plans_manager configuration_manager num_input_channels num_output_channels "
         "enable_deep_supervision"),
    Hold("how a trainer builds its network", f"{TRAINER}.initialize", "center and offset heads in training",
         "trainers.conflunet_trainer trainers.isbi2024", parameters="self",
         source=("if 'plans_manager' in sig.parameters:",
         "self.label_manager.num_segmentation_heads, self.enable_deep_supervision).to(self.device)",
         "self.loss = self._build_loss()", "self._set_batch_size_and_oversample()")),
    Hold("how a predictor builds the network", f"{PREDICTOR}.initialize_from_trained_model_folder",
         "center and offset heads in prediction", "trainers.conflunet_trainer inference.predictor",
         parameters="self model_training_output_dir use_folds checkpoint_name",
         source=("if 'plans_manager' in sig.parameters:", "recursive_find_trainer_class_by_name(trainer_name)",
         "load_json(join(model_training_output_dir, 'plans.json'))")),
    Hold("decoder of a U-Net", "dynamic_network_architectures.architectures.unet:PlainConvUNet",
         "heads apart from the logits in training", "networks.heads trainers.isbi2024", attributes="initialize",
         behavior="decoder.seg_layers end with the finest, whose output is first, in a list if supervision is deep"),
    Hold("deep supervision switch", f"{TRAINER}.set_deep_supervision_enabled",
         "heads apart from the logits in training, plain outputs in prediction", "networks.heads",
         parameters="self enabled", source=("mod.decoder.deep_supervision = enabled",)),
    Hold("torch's hook before weights are loaded", "torch.nn:Module._register_load_state_dict_pre_hook",
         "one sentence for a checkpoint that does not fit", "networks.heads", parameters="self hook with_module ..."),
    Hold("torch's compiled module", "torch._dynamo:OptimizedModule", "the heads of a compiled network are found",
         "networks.heads", behavior="_orig_mod is the network inside"),
    Hold("constructor of a trainer", f"{TRAINER}.__init__",
         "our trainers are made by nnU-Net's command and from checkpoints",
         "trainers.conflunet_trainer trainers.isbi2024 trainers.mixing",
         parameters="self plans configuration fold dataset_json device",
         source=("for k in inspect.signature(self.__init__).parameters.keys(): self.my_init_kwargs[k] = locals()[k]",
         "self.logger = MetaLogger(", "self.initial_lr = 1e-2", "self.weight_decay = 3e-5",
         "self.oversample_foreground_percent = 0.33", "self.probabilistic_oversampling = False",
         "self.num_epochs = 1000", "self.enable_deep_supervision = True",
         "self.inference_allowed_mirroring_axes = None", "self.was_initialized = False")),
    Hold("hooks of a trainer", TRAINER, "instance maps, targets, losses, schedule and log of the heads",
         "trainers.conflunet_trainer trainers.isbi2024 trainers.variants trainers.warm_up",
         methods={"_build_loss": "self", "_set_batch_size_and_oversample": "self", "configure_optimizers": "self",
         "configure_rotation_dummyDA_mirroring_and_inital_patch_size": "self", "do_split": "self",
         "get_training_transforms": "...", "get_validation_transforms": "...",
         "load_checkpoint": "self filename_or_checkpoint", "on_epoch_end": "self",
         "on_train_epoch_end": "self train_outputs", "on_train_epoch_start": "self", "on_train_start": "self",
         "on_validation_epoch_end": "self val_outputs", "perform_actual_validation": "self save_probabilities",
         "print_to_log_file": "self *args also_print_to_console add_timestamp", "train_step": "self batch",
         "validation_step": "self batch"}),
    Hold("slot of a cascade's previous stage", f"{TRAINER}.get_tr_and_val_datasets",
         "instance maps in the training patches", "trainers.conflunet_trainer preprocessing.preprocessed",
         source=("folder_with_segs_from_previous_stage=self.folder_with_segs_from_previous_stage",)),
    Hold("previous stage of a case", "nnunetv2.training.dataloading.nnunet_dataset:nnUNetDatasetBlosc2",
         "instance maps in the training patches", "imageio.preprocessed_cases", methods={"load_case": "self identifier",
         "save_seg": "seg output_filename_truncated chunks_seg blocks_seg", "get_identifiers": "folder"},
         source=("join(self.folder_with_segs_from_previous_stage, identifier + '.b2nd')",
         "return data, seg, seg_prev, properties")),
    Hold("previous stage in older datasets", "nnunetv2.training.dataloading.nnunet_dataset:nnUNetDatasetNumpy",
         "instance maps in the training patches of .npz datasets", "imageio.preprocessed_cases",
         methods={"save_seg": "seg output_filename_truncated"},
         source=("np.load(join(self.folder_with_segs_from_previous_stage, identifier + '.npz'))['seg']",)),
    Hold("patches of the loader", "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader.generate_train_batch",
         "instance maps and centers in the training patches, and targets of several dtypes",
         "trainers.augmentation trainers.conflunet_trainer trainers.patch_loader",
         source=("crop_and_pad_nd(seg_prev, bbox, -1, cast_cropped_to=np.int16)", "'target': seg_all",
         "torch.cat((seg_cropped, seg_prev_cropped[None]), dim=0)", "self._data.load_case(i)",
         "self.transforms(**{'image': data_cropped, 'segmentation': seg_cropped})",
         "dtype=s.dtype) for s in seg_sample]", "self.get_bbox(shape, force_fg, properties['class_locations'])")),
    Hold("loaders of a trainer", f"{TRAINER}.get_dataloaders", "centers of cut lesions", "nnunet_plugin.hand_over",
         source=("dl_tr = nnUNetDataLoader(dataset_tr,", "dl_val = nnUNetDataLoader(dataset_val,")),
    Hold("where preprocessing cropped",
         "nnunetv2.preprocessing.preprocessors.default_preprocessor:DefaultPreprocessor.run_case_npy",
         "instance maps on the preprocessed grid, instances back on the image's grid",
         "preprocessing.preprocessed inference.instances", source=("properties['bbox_used_for_cropping'] = bbox",
         "properties['shape_before_cropping'] =")),
    Hold("grid of preprocessing", "nnunetv2.preprocessing.resampling.default_resampling:resample_data_or_seg_to_shape",
         "instance maps on the preprocessed grid", "preprocessing.instance_map",
         parameters="data new_shape current_spacing new_spacing is_seg order ...",
         behavior="both grids cover the same extent"),
    Hold("chunks of preprocessed files", "nnunetv2.training.dataloading.nnunet_dataset:comp_blosc2_params",
         "instance maps that load as fast as labels", "preprocessing.instance_map",
         parameters="image_size patch_size bytes_per_pixel ...", behavior="blocks and chunks begin with the channel"),
    Hold("cases of a raw dataset", "nnunetv2.utilities.utils", "instancesTr of each training case",
         "preprocessing.raw_dataset", methods={"get_identifiers_from_splitted_dataset_folder": "folder file_ending",
         "get_filenames_of_train_images_and_targets": "raw_dataset_folder dataset_json"}),
    Hold("augmentation of a trainer", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
         "lesions keep their center through augmentation", "trainers.augmentation",
         behavior="of its transforms only the spatial one and the mirroring move voxels, the scales come last"),
    Hold("spatial transform", f"{TRANSFORMS}.spatial.spatial:SpatialTransform",
         "lesions keep their center through rotation and scaling", "trainers.augmentation",
         methods={"get_parameters": "self **data_dict", "apply": "self data_dict **params"},
         behavior="a drawn affine matrix leads from the patch's voxels to the crop's, and mode_seg may be nearest"),
    Hold("mirroring transform", f"{TRANSFORMS}.spatial.mirroring:MirrorTransform",
         "lesions keep their center through mirroring", "trainers.augmentation", parameters="allowed_axes",
         methods={"apply": "self data_dict **params"}, behavior="it flips the drawn axes, counted without the channel"),
    Hold("rotation by right angles", f"{TRANSFORMS}.spatial.rot90:Rot90Transform", "centers in nnUNetTrainerDA5",
         "trainers.augmentation", source=("zip(num_rot_per_combination, axis_combinations): tensor = torch.rot90(",)),
    Hold("exchange of axes", f"{TRANSFORMS}.spatial.transpose:TransposeAxesTransform", "centers in nnUNetTrainerDA5",
         "trainers.augmentation", source=("segmentation.permute(params['axis_order'])",)),
    Hold("scales of deep supervision", f"{TRANSFORMS}.utils.deep_supervision_downsampling:DownsampleSegForDSTransform",
         "targets of the heads beside those of the scales", "trainers.augmentation", parameters="ds_scales",
         behavior="it makes a list of scales of a segmentation alone"),
    Hold("compound loss", "nnunetv2.training.loss.compound_losses:DC_and_CE_loss", "the paper's focal loss",
         "trainers.isbi2024", source=("self.ce =", "self.weight_dice = weight_dice",
         "self.ce(net_output, target[:, 0])")),
    Hold("training step", f"{TRAINER}.train_step", "the losses of the heads", "trainers.conflunet_trainer",
         source=("isinstance(target, list)", "l = self.loss(output, target)", "return {'loss': l.detach()")),
    Hold("validation step", f"{TRAINER}.validation_step", "nnU-Net's pseudo Dice of the semantic channels",
         "trainers.conflunet_trainer", source=("l = self.loss(output, target)",
         "if self.enable_deep_supervision: output = output[0] target = target[0]")),
    Hold("collecting of what steps return", "nnunetv2.utilities.collate_outputs:collate_outputs",
         "the parts of the loss in the log", "trainers.conflunet_trainer trainers.progress", parameters="outputs",
         behavior="it takes further arrays, without axes too, from the steps"),
    Hold("log of a training", "nnunetv2.training.logging.nnunet_logger:MetaLogger",
         "the parts of the loss in the log, and the start of the heads by the pseudo Dice",
         "nnunet_plugin.logger trainers.progress trainers.warm_up", methods={"log": "self key value step",
         "get_value": "self key step"},
         behavior="local_logger.my_fantastic_logging holds a list by name, also of mean_fg_dice, and takes more"),
    Hold("start of a training", f"{TRAINER}.on_train_start", "the settings of instances travel in plans.json",
         "trainers.conflunet_trainer", source=("if not self.was_initialized: self.initialize()",
         "self.get_dataloaders()", "save_json(self.plans_manager.plans, join(self.output_folder_base, 'plans.json')")),
    Hold("split of a training", f"{TRAINER}.do_split", "folds that start at once", "trainers.conflunet_trainer",
         source=('splits_file = join(self.preprocessed_dataset_folder_base, "splits_final.json")',)),
    Hold("final validation", f"{TRAINER}.perform_actual_validation", "instances of the validation cases",
         "trainers.conflunet_trainer nnunet_plugin.hand_over", source=("predictor = nnUNetPredictor(",
         "predictor.predict_sliding_window_return_logits(data)",
         "starmap_async(export_prediction_from_logits, ((prediction, properties, self.configuration_manager, "
         "self.plans_manager, self.dataset_json, output_filename_truncated, save_probabilities),",
         "starmap_async(resample_and_save, ((prediction, target_shape, output_file_truncated, self.plans_manager, "
         "self.configuration_manager, properties, self.dataset_json, default_num_processes, dataset_class),",
         "if self.is_cascaded:")),
    Hold("entries of prediction", PREDICTOR, "nnUNetv2_predict and the validation hand over to our predictor",
         "nnunet_plugin.hand_over inference.predictor",
         methods={"manual_initialization": "self network plans_manager configuration_manager parameters dataset_json "
         "trainer_name inference_allowed_mirroring_axes",
         "predict_from_files": "self list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files "
         "save_probabilities overwrite num_processes_preprocessing num_processes_segmentation_export "
         "folder_with_segs_from_prev_stage num_parts part_id",
         "predict_from_files_sequential": "self list_of_lists_or_source_folder "
         "output_folder_or_list_of_truncated_output_files save_probabilities overwrite "
         "folder_with_segs_from_prev_stage", "predict_from_list_of_npy_arrays": "self image_or_list_of_images ...",
         "predict_from_data_iterator": "self data_iterator save_probabilities num_processes_segmentation_export",
         "predict_single_npy_array": "self input_image image_properties segmentation_previous_stage "
         "output_file_truncated save_or_return_probabilities", "predict_logits_from_preprocessed_data": "self data",
         "predict_sliding_window_return_logits": "self input_image"}),
    Hold("cases to predict", f"{PREDICTOR}._manage_input_and_output_lists",
         "--continue_prediction looks at the instance maps too", "inference.predictor",
         parameters="self list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files "
         "folder_with_segs_from_prev_stage overwrite part_id num_parts save_probabilities",
         source=("return list_of_lists_or_source_folder, output_filename_truncated, seg_from_prev_stage_files",)),
    Hold("mirroring at prediction", f"{PREDICTOR}._internal_maybe_mirror_and_predict", "offsets that survive mirroring",
         "inference.predictor", parameters="self x",
         source=("self.allowed_mirroring_axes if self.use_mirroring else None",
         "prediction /= (len(axes_combinations) + 1)")),
    Hold("sliding window", f"{PREDICTOR}._internal_predict_sliding_window_return_logits",
         "heads of whole images, in float32", "inference.predictor", parameters="self data slicers do_on_device",
         source=("torch.zeros((self.label_manager.num_segmentation_heads, *data.shape[1:])", "for s in slh: q.put(",
         "self._internal_maybe_mirror_and_predict(workon)[0].to(results_device)",
         "compute_gaussian(tuple(self.configuration_manager.patch_size), sigma_scale=1. / 8, value_scaling_factor=10, "
         "device=results_device)", "n_predictions[sl[1:]] += gaussian")),
    Hold("weights of the sliding window", "nnunetv2.inference.sliding_window_prediction:compute_gaussian",
         "heads of whole images, in float32", "inference.predictor",
         parameters="tile_size sigma_scale value_scaling_factor dtype device"),
    Hold("export of many cases", f"{PREDICTOR}.predict_from_data_iterator",
         "instance maps and lesion tables of nnUNetv2_predict", "nnunet_plugin.hand_over inference.export",
         source=("apply_async(export_prediction_from_logits, (prediction, properties, self.configuration_manager, "
         "self.plans_manager, self.dataset_json, ofile, save_probabilities))",
         "apply_async(convert_predicted_logits_to_segmentation_with_correct_shape, (prediction, self.plans_manager, "
         "self.configuration_manager, self.label_manager, properties, save_probabilities))")),
    Hold("export of one case", "nnunetv2.inference.export_prediction:export_prediction_from_logits",
         "nnU-Net's files of a case beside the instance map", "inference.export",
         parameters="predicted_array_or_file properties_dict configuration_manager plans_manager "
         "dataset_json_dict_or_file output_file_truncated save_probabilities num_threads_torch",
         source=("np.savez_compressed(output_file_truncated + '.npz', probabilities=probabilities_final)",)),
    Hold("segmentation of logits",
         "nnunetv2.inference.export_prediction:convert_predicted_logits_to_segmentation_with_correct_shape",
         "segmentations in memory", "inference.export inference.predictor",
         parameters="predicted_logits plans_manager configuration_manager label_manager properties_dict ..."),
    Hold("export for the next stage of a cascade", "nnunetv2.inference.export_prediction:resample_and_save",
         "a low-resolution ConfLUNet before a stock cascade", "inference.export",
         parameters="predicted target_shape output_file plans_manager configuration_manager properties_dict "
         "dataset_json_dict_or_file num_threads_torch dataset_class"),
    Hold("preprocessing in memory", "nnunetv2.inference.data_iterators:PreprocessAdapterFromNpy", "predict_instances",
         "inference.predictor",
         parameters="list_of_images list_of_segs_from_prev_stage list_of_image_properties truncated_ofnames "
         "plans_manager dataset_json configuration_manager num_threads_in_multithreaded verbose"),
    Hold("nnU-Net's postprocessing", "nnunetv2.postprocessing.remove_connected_components",
         "tuning on masks that nnU-Net postprocessed", "nnunet_plugin.postprocessing tuning.model_folder",
         methods={"remove_all_but_largest_component_from_segmentation": "segmentation labels_or_regions "
         "background_label"},
         source=("save_pickle((pp_fns, pp_fn_kwargs), join(folder_predictions, 'postprocessing.pkl'))",)),
    Hold("geometry from SimpleITK's readers", "nnunetv2.imageio.simpleitk_reader_writer",
         "instance maps and lesions in the world's coordinates", "imageio.geometry imageio.instance_maps",
         source=("'sitk_stuff': {", "'original_orientation': original_orientation", "'spacing': spacings[0]")),
    Hold("geometry from nibabel's readers", "nnunetv2.imageio.nibabel_reader_writer",
         "instance maps and lesions in the world's coordinates", "imageio.geometry imageio.instance_maps",
         source=("'nibabel_stuff': {", "'original_affine':", "'reoriented_affine': reoriented_affines[0]")),
    Hold("geometry of TIFF files", "nnunetv2.imageio.tif_reader_writer:Tiff3DIO", "spacing of TIFF files",
         "imageio.geometry imageio.instance_maps", source=("seg_fname[:-ending_length] + '.json'",
         "save_json({'spacing': properties['spacing']}")),
    Hold("choice of a reader", "nnunetv2.imageio.reader_writer_registry", "folders are read as nnU-Net reads them",
         "imageio.case_folder",
         methods={"determine_reader_writer_from_dataset_json": "dataset_json_content example_file "
         "allow_nonmatching_filename verbose"}, attributes="LIST_OF_IO_CLASSES",
         source=("'overwrite_image_reader_writer' in dataset_json_content.keys()",)),
)
# fmt: on
