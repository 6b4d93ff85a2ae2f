"""What every synthetic DICOM file says of its patient and study: that there is none. Used by slices and X-rays."""

from typing import Any

PATIENT_AND_STUDY = {
    "Manufacturer": "SYNTHETIC",
    "PatientName": "Synthetic^Phantom",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "computer-generated phantom, no patient",
    "StudyDate": "20000101",
    "StudyTime": "000000",
    "StudyID": "1",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 12,
    "HighBit": 11,
    "PixelRepresentation": 0,
    "RescaleSlope": 1,
    "BurnedInAnnotation": "NO",
}


def phantom_dataset(sop_class: str, series: str, number: int, shape: tuple[int, int], *source: str) -> Any:
    """A `pydicom.Dataset` without pixels (explicit little endian, 12 bits stored), for a picture of `shape` (H, W).

    `series`, `number` and `source` (further words, such as the modality) make the UIDs, the first two the plainly
    synthetic patient id. Needs pydicom: the `medical` extra.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    words = [series, str(number), *source]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=words)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["radio-vlm"])
    data = Dataset()
    data.file_meta = meta
    values = {
        **PATIENT_AND_STUDY,
        "SOPClassUID": sop_class,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": generate_uid(entropy_srcs=[*words, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[*words, "series"]),
        "PatientID": f"SYNTHETIC-{series}-{number:06d}",
        "Rows": shape[0],
        "Columns": shape[1],
    }
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data
